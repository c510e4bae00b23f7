{{/* The end of the names of a revision's objects. */}}
{{- define "outrider.suffix" -}}
{{- with .Values.revision }}-{{ . }}{{ end -}}
{{- end }}

{{- define "outrider.control" -}}
outrider-control{{ include "outrider.suffix" . }}
{{- end }}

{{- define "outrider.injector" -}}
outrider-injector{{ include "outrider.suffix" . }}
{{- end }}

{{- define "outrider.injectorSecret" -}}
outrider-injector-tls{{ include "outrider.suffix" . }}
{{- end }}

{{/* The Secret of the authority. */}}
{{- define "outrider.caSecret" -}}
{{- .Values.ca.existingSecret | default "outrider-ca" -}}
{{- end }}

{{/* Where sidecars find discovery and certificates. */}}
{{- define "outrider.controlHost" -}}
{{ include "outrider.control" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* "true" where this release has what all revisions share, else nothing. */}}
{{- define "outrider.shared" -}}
{{- $create := .Values.shared.create | toString -}}
{{- if or (eq $create "true") (and (eq $create "auto") (not .Values.revision)) -}}
true
{{- end -}}
{{- end }}

{{/* An image by the end of its name: (list . "control"). */}}
{{- define "outrider.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.registry }}/outrider-{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* What selects the pods of a component: (list . "control"). Nothing here may change between
     versions, for a Deployment's selector cannot. */}}
{{- define "outrider.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: outrider-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end }}

{{/* The labels of a component's objects: (list . "control"). */}}
{{- define "outrider.labels" -}}
{{- $root := index . 0 -}}
{{ include "outrider.selector" . }}
app.kubernetes.io/component: {{ index . 1 }}
{{ include "outrider.commonLabels" $root }}
{{- end }}

{{/* The labels of what is no component's. */}}
{{- define "outrider.commonLabels" -}}
app.kubernetes.io/part-of: outrider
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.revision }}
outrider.dev/rev: {{ . }}
{{- end }}
{{- end }}

{{/* What every container of ours is held to. */}}
{{- define "outrider.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
{{- end }}

{{- define "outrider.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "outrider.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where and before whom a component's pods run: (list . "control"). */}}
{{- define "outrider.scheduling" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
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
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "outrider.selector" . | nindent 14 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "outrider.selector" . | nindent 8 }}
{{- end }}

{{/* The probes of both components, on the monitoring port. */}}
{{- define "outrider.probes" -}}
startupProbe:
  httpGet: {path: /healthz/live, port: monitoring}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /healthz/ready, port: monitoring}
  periodSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /healthz/live, port: monitoring}
  periodSeconds: 10
  failureThreshold: 3
{{- end }}

{{/* The environment by which both know where they are. */}}
{{- define "outrider.podEnvironment" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}

{{/* A policy that lets in a component's ports: (list . "control" (list 15012)). The API server has
     no address that a selector knows, so who may connect is left open; both ports are TLS, and
     know whom they serve. */}}
{{- define "outrider.networkPolicy" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: outrider-{{ $component }}{{ include "outrider.suffix" $root }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "outrider.labels" (list $root $component) | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "outrider.selector" (list $root $component) | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    - ports:
        - {port: {{ index . 2 }}, protocol: TCP}
    - ports:
        - {port: 15014, protocol: TCP}
      {{- with $root.Values.networkPolicy.monitoringFrom }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}

{{/* A budget that lets one pod of a component go at a time: (list . "control"). */}}
{{- define "outrider.disruptionBudget" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: outrider-{{ $component }}{{ include "outrider.suffix" $root }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "outrider.labels" (list $root $component) | nindent 4 }}
spec:
  maxUnavailable: 1
  # A pod that is not ready serves nobody, so a drain need not wait for it.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "outrider.selector" (list $root $component) | nindent 6 }}
{{- end }}
