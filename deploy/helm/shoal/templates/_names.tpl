{{- define "shoal.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "shoal.selector" -}}
app.kubernetes.io/name: {{ include "shoal.name" . }}
{{- end }}

{{- define "shoal.labels" -}}
{{ include "shoal.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "shoal.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "shoal.config" -}}
{{- $own := not (hasKey .Values.runtime "execd_image") -}}
[server]
host = "0.0.0.0"
port = 8080
[log]
format = "json"
[store]
path = "/var/lib/shoal/shoal.db"
[runtime]
type = "kubernetes"
{{- if $own }}
execd_image = {{ include "shoal.image" . | toJson }}
{{- end }}
{{- range $key, $value := .Values.runtime }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
[kubernetes]
namespace = "{{ .Values.sandboxes.namespace }}"
workload_provider = "{{ .Values.provider }}"
{{- if and $own (not (hasKey .Values.kubernetes "agent_token")) }}
agent_token = true
{{- end }}
{{- range $key, $value := .Values.kubernetes }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- if and .Values.template (ne .Values.provider "agent-sandbox") }}
{{ .Values.provider }}_template_file = "/etc/shoal/template.yaml"
{{- end }}
{{- if and .Values.template (eq .Values.provider "agent-sandbox") }}
[agent_sandbox]
template_file = "/etc/shoal/template.yaml"
{{- end }}
{{- with .Values.config }}
{{ . | trim }}
{{- end }}
{{- end }}
