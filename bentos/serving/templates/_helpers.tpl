{{- define "service" -}}
{{ .Values.model | replace "_" "-" }}
{{- end }}

{{- define "selector" -}}
app.kubernetes.io/name: {{ include "service" . }}
app.kubernetes.io/component: model
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ int64 .Values.version | quote }}
app.kubernetes.io/part-of: slipway
app.kubernetes.io/managed-by: {{ .Release.Service }}
slipway.dev/model: {{ .Values.model }}
{{- end }}

{{- /* Who may call, as YAML; nothing where everybody may. */ -}}
{{- define "callers" -}}
{{- $own := .Values.rollout.allowFrom -}}
{{- $callers := ternary .Values.serving.allowFrom $own (kindIs "invalid" $own) -}}
{{- if not (kindIs "invalid" $callers) }}{{ toYaml $callers }}{{ end }}
{{- end }}

{{- /* The pins, where `slipway trace` and on-call read them. */ -}}
{{- define "lineage" -}}
slipway.dev/model: {{ .Values.model }}
slipway.dev/version: {{ int64 .Values.version | quote }}
slipway.dev/bento: {{ .Values.bento.digest }}
slipway.dev/runtime: {{ .Values.runtime.image }}
slipway.dev/data: {{ .Values.data.digest }}
slipway.dev/commit: {{ .Values.code.commit | quote }}
slipway.dev/run: {{ .Values.mlflow.run | quote }}
slipway.dev/signature: {{ .Values.signature.digest }}
slipway.dev/evidence: {{ .Values.evidence.digest }}
{{- end }}

{{- define "container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
