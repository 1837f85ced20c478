{{- define "poller.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "poller.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "poller.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "poller.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "poller.selector" -}}
app.kubernetes.io/name: {{ include "poller.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "poller.labels" -}}
{{ include "poller.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Labels of pods. Whatever changes here restarts all pods, so neither the chart's version nor its appVersion is among them:
       an upgrade of the chart restarts pods only if it changes something about them. `helm.sh/chart` is the version of the chart
       that changed the pods of all values last. */ -}}
{{- define "poller.podLabels" -}}
{{ include "poller.selector" . }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: poller-0.1.0
{{- end -}}

{{- /* The pods of `helm test`. Not the name of the daemon's pods: its Service, disruption budget and NetworkPolicy must not find them. */ -}}
{{- define "poller.testSelector" -}}
app.kubernetes.io/name: {{ include "poller.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "poller.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "poller.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "poller.configMap" -}}
{{- default (include "poller.fullname" .) .Values.existingConfigMap -}}
{{- end -}}

{{- define "poller.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "poller.autoscaled" -}}
{{- or .Values.autoscaling.keda.enabled .Values.autoscaling.hpa.enabled -}}
{{- end -}}

{{- define "poller.replicas" -}}
{{- if eq .Values.store.type "sqlite" -}}1
{{- else if eq (include "poller.autoscaled" .) "true" -}}{{ .Values.autoscaling.maxReplicas }}
{{- else -}}{{ .Values.replicas }}{{- end -}}
{{- end -}}

{{- define "poller.scalingBehavior" -}}
# The recommendation has its own waiting times. These are for pods that start, and for those that are moved.
scaleUp:
  stabilizationWindowSeconds: 0
  policies: [{type: Percent, value: 100, periodSeconds: 60}]
scaleDown:
  stabilizationWindowSeconds: 300
  policies: [{type: Percent, value: 25, periodSeconds: 60}, {type: Pods, value: 1, periodSeconds: 60}]
{{- end -}}
