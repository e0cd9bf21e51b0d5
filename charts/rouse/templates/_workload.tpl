{{/* Parts that the pods of both workloads share. All take (dict "root" $ "component" "operator"|"activator"). */}}

{{- define "rouse.podMetadata" -}}
{{- $values := get .root.Values .component -}}
labels:
  {{- /* Ours last: the Deployment's selector must find them. */}}
  {{- $own := include "rouse.labels" . | fromYaml }}
  {{- toYaml (merge (dict) $own $values.podLabels) | nindent 2 }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .component }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Takes the name of the port. */}}
{{- define "rouse.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}

{{/* Environment that both binaries read. */}}
{{- define "rouse.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: ROUSE_DOMAIN
  value: {{ .root.Values.domain | quote }}
- name: ROUSE_HOST_TEMPLATE
  value: {{ .root.Values.hostTemplate | quote }}
{{- with .root.Values.hosts.allowed }}
- name: ROUSE_ALLOWED_HOSTS
  value: {{ toJson . | quote }}
{{- end }}
- name: ROUSE_CLUSTER_DOMAIN
  value: {{ .root.Values.clusterDomain | quote }}
- name: ROUSE_LOG_FORMAT
  value: {{ .root.Values.logFormat | quote }}
- name: RUST_LOG
  value: {{ .root.Values.logLevel | quote }}
- name: ROUSE_SHUTDOWN_GRACE
  value: {{ (get .root.Values .component).shutdownGrace | quote }}
{{- end -}}

{{- define "rouse.placement" -}}
{{- $values := get .root.Values .component -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with $values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- if $values.topologySpreadConstraints }}
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "rouse.selectorLabels" . | nindent 8 }}
    {{- /* During a rollout the new pods are spread among themselves. */}}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}

{{- define "rouse.podDisruptionBudget" -}}
{{- $values := (get .root.Values .component).podDisruptionBudget -}}
{{- if $values.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "rouse.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "rouse.labels" . | nindent 4 }}
spec:
  {{- /* Null and not "empty" is asked for: 0 is a value. */}}
  {{- if kindIs "invalid" $values.minAvailable }}
  maxUnavailable: {{ $values.maxUnavailable }}
  {{- else }}
  minAvailable: {{ $values.minAvailable }}
  {{- end }}
  # A pod that is not ready serves nobody: it must not hold up the drain of its node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "rouse.selectorLabels" . | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "rouse.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "rouse.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "rouse.labels" . | nindent 4 }}
  {{- with (get .root.Values .component).serviceAccountAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
# The pods ask for the token themselves; nobody else who names this account gets one unasked.
automountServiceAccountToken: false
{{- end -}}

{{/* Takes the root. */}}
{{- define "rouse.apiEgress" -}}
# The API server. It cannot be named otherwise: it has no pod or label in many clusters.
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

{{/* Takes the root. */}}
{{- define "rouse.metricsIngress" -}}
# Metrics.
- from:
    - namespaceSelector:
        matchExpressions:
          - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson .Values.networkPolicy.metricsNamespaces }}}
  ports:
    - {port: admin, protocol: TCP}
{{- end -}}
