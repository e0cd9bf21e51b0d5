{{/* Stem of all names. Without an override it is the release's name, so that two releases do not meet. */}}
{{- define "rouse.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The helpers below that speak of one workload take (dict "root" $ "component" "operator"|"activator"). */}}
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
{{- if eq .Values.ingress.mode "gateway" -}}
{{- fail "ingress.mode=gateway is reserved for a later version; set ingress.mode to `ingress`, or to `none` and route to the Service yourself" -}}
{{- end -}}
{{- $delay := include "rouse.seconds" .Values.activator.shutdownDelay | int -}}
{{- if ge $delay (include "rouse.seconds" .Values.activator.shutdownGrace | int) -}}
{{- fail (printf "activator.shutdownDelay (%s) must be shorter than activator.shutdownGrace (%s), which includes it" .Values.activator.shutdownDelay .Values.activator.shutdownGrace) -}}
{{- end -}}
{{- $queue := .Values.activator.queue -}}
{{- if gt (int $queue.maxRequestsPerNamespace) (int $queue.maxRequests) -}}
{{- fail (printf "activator.queue.maxRequestsPerNamespace (%d) must not be more than activator.queue.maxRequests (%d)" (int $queue.maxRequestsPerNamespace) (int $queue.maxRequests)) -}}
{{- end -}}
{{- end -}}
