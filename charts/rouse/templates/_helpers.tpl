{{/* Stem of all names. Without an override it is the release's name, so that two releases do not meet. */}}
{{- define "rouse.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The helpers below that are about one workload take (dict "root" $ "component" "operator"|"activator"). */}}
{{- define "rouse.componentName" -}}
{{- printf "%s-%s" (include "rouse.fullname" .root) .component -}}
{{- end -}}

{{/* Without the version: a selector cannot be changed later. */}}
{{- define "rouse.selectorLabels" -}}
app.kubernetes.io/name: rouse
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "rouse.labels" -}}
{{ include "rouse.selectorLabels" . }}
{{ include "rouse.sharedLabels" .root }}
{{- end -}}

{{- define "rouse.sharedLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: rouse
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of what belongs to no single workload. */}}
{{- define "rouse.releaseLabels" -}}
app.kubernetes.io/name: rouse
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "rouse.sharedLabels" . }}
{{- end -}}

{{- define "rouse.image" -}}
{{- $image := (get .root.Values .component).image -}}
{{- $name := $image.repository -}}
{{- with $image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* "90s", "2m" or "1h" as a number of seconds; the schema lets nothing else in. */}}
{{- define "rouse.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := dict "s" 1 "m" 60 "h" 3600 -}}
{{- mul $number (get $unit (regexFind "[smh]$" .)) -}}
{{- end -}}

{{/* The kubelet must not end a process that is still within its own grace. */}}
{{- define "rouse.terminationGracePeriodSeconds" -}}
{{- $values := get .root.Values .component -}}
{{- $grace := include "rouse.seconds" $values.shutdownGrace | int -}}
{{- $period := $values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $period -}}
{{- add $grace 5 -}}
{{- else if le (int $period) $grace -}}
{{- fail (printf "%s.terminationGracePeriodSeconds (%d) must be longer than %s.shutdownGrace (%s); leave it out to have 5 seconds more" .component (int $period) .component $values.shutdownGrace) -}}
{{- else -}}
{{- int $period -}}
{{- end -}}
{{- end -}}

{{/* What the schema cannot say: relations between values. */}}
{{- define "rouse.validate" -}}
{{- $gateway := .Values.ingress.gateway -}}
{{- if eq .Values.ingress.mode "gateway" -}}
{{- if and $gateway.create $gateway.name -}}
{{- fail "ingress.gateway.create and ingress.gateway.name exclude one another: a Gateway that is made is named like the release" -}}
{{- end -}}
{{- if and $gateway.create (not $gateway.className) -}}
{{- fail "ingress.gateway.create needs ingress.gateway.className (kubectl get gatewayclasses)" -}}
{{- end -}}
{{- if not (or $gateway.create $gateway.name) -}}
{{- fail "ingress.mode=gateway needs ingress.gateway.name, the Gateway to use, or ingress.gateway.create=true with ingress.gateway.className" -}}
{{- end -}}
{{- if .Values.ingress.tls.secretNameTemplate -}}
{{- fail "ingress.tls.secretNameTemplate is for ingress.mode=ingress: the listeners of a Gateway have the certificates" -}}
{{- end -}}
{{- if and .Values.ingress.tls.redirect (not (include "rouse.gatewaySections" .)) -}}
{{- fail "ingress.tls.redirect in ingress.mode=gateway needs a listener for https: ingress.gateway.sectionName, or with ingress.gateway.create=true ingress.tls.secretName" -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.hosts.allowed) (regexMatch "\\{name\\}[^.]*\\{namespace\\}" .Values.hostTemplate) -}}
{{- fail (printf "hostTemplate %s does not separate the name of a Function from its namespace, so two namespaces may share a default host: state who may claim which hosts in hosts.allowed, or put a dot between {name} and {namespace}" .Values.hostTemplate) -}}
{{- end -}}
{{- $delay := include "rouse.seconds" .Values.activator.shutdownDelay | int -}}
{{- if ge $delay (include "rouse.seconds" .Values.activator.shutdownGrace | int) -}}
{{- fail (printf "activator.shutdownDelay (%s) must be shorter than activator.shutdownGrace (%s), which includes it" .Values.activator.shutdownDelay .Values.activator.shutdownGrace) -}}
{{- end -}}
{{- $queue := .Values.activator.queue -}}
{{- if and $queue.maxRequests (gt (int $queue.maxRequestsPerNamespace) (int $queue.maxRequests)) -}}
{{- fail (printf "activator.queue.maxRequestsPerNamespace (%d) must not be more than activator.queue.maxRequests (%d)" (int $queue.maxRequestsPerNamespace) (int $queue.maxRequests)) -}}
{{- end -}}
{{- end -}}

{{/* The Gateway of mode `gateway`. */}}
{{- define "rouse.gatewayName" -}}
{{- if .Values.ingress.gateway.create -}}{{ include "rouse.fullname" . }}{{- else -}}{{ .Values.ingress.gateway.name }}{{- end -}}
{{- end -}}

{{- define "rouse.gatewayNamespace" -}}
{{- if .Values.ingress.gateway.create -}}
{{ .Release.Namespace }}
{{- else -}}
{{ .Values.ingress.gateway.namespace | default .Release.Namespace }}
{{- end -}}
{{- end -}}

{{/* The listeners that serve functions, separated by commas. Empty: all of them. Of a Gateway that the chart makes
they are named only where a redirect keeps functions off the listener for http. */}}
{{- define "rouse.gatewaySections" -}}
{{- $tls := .Values.ingress.tls -}}
{{- if not .Values.ingress.gateway.create -}}
{{- .Values.ingress.gateway.sectionName -}}
{{- else if $tls.redirect -}}
{{- $sections := list -}}
{{- if $tls.secretName }}{{ $sections = append $sections "https" }}{{ end -}}
{{- range $index, $host := keys $tls.perHost | sortAlpha }}{{ $sections = append $sections (printf "https-%d" $index) }}{{ end -}}
{{- join "," $sections -}}
{{- end -}}
{{- end -}}

{{/* Scheme of the default hosts. */}}
{{- define "rouse.scheme" -}}
{{- $tls := .Values.ingress.tls -}}
{{- if .Values.ingress.scheme -}}
{{- .Values.ingress.scheme -}}
{{- else if eq .Values.ingress.mode "none" -}}
{{- ternary "https" "http" (or .Values.activator.tls.redirect (not (empty .Values.activator.tls.secretName))) -}}
{{- else if and (eq .Values.ingress.mode "gateway") (not .Values.ingress.gateway.create) -}}
{{- /* The Gateway's own listeners have the certificates; a redirect of HTTP to HTTPS implies them. */ -}}
{{- ternary "https" "http" $tls.redirect -}}
{{- else -}}
{{- ternary "https" "http" (not (empty (or $tls.secretName $tls.secretNameTemplate))) -}}
{{- end -}}
{{- end -}}

{{/* Fields of spec.podTemplate.spec and of its containers that give a pod no rights and no place, as CEL strings. */}}
{{- define "rouse.restrictedPodFields" -}}
'containers', 'terminationGracePeriodSeconds', 'topologySpreadConstraints', 'affinity'
{{- end -}}

{{- define "rouse.restrictedContainerFields" -}}
'name', 'resources', 'livenessProbe', 'readinessProbe', 'startupProbe', 'lifecycle', 'workingDir', 'terminationMessagePolicy'
{{- end -}}
