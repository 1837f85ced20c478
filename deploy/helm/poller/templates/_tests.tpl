{{- define "poller.testContainer" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{- toYaml .Values.test.resources | nindent 2 }}
{{- end -}}

{{- define "poller.testPolicy" -}}
helm.sh/hook: test
helm.sh/hook-weight: "-1"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- /* Whether the store needs credentials of AWS that come from the service account. */ -}}
{{- define "poller.storeByRole" -}}
{{- if not (or .Values.aws.credentialsSecret .Values.existingConfigMap) -}}
{{- if or (eq .Values.store.type "dynamodb") (and (eq .Values.store.type "postgresql") .Values.store.postgresql.iam) -}}true{{- end -}}
{{- end -}}
{{- end -}}
