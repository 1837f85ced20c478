{{- define "poller.podTemplate" -}}
metadata:
  labels:
    {{- include "poller.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    kubectl.kubernetes.io/default-container: poller
    {{- with include "poller.restartFor" . }}
    checksum/config: {{ sha256sum . }}
    {{- end }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "poller.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "poller.terminationGracePeriodSeconds" . }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
    - name: poller
      image: {{ include "poller.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run, --config, /etc/poller/poller.yaml]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      ports:
        - name: http
          containerPort: {{ .Values.port }}
          protocol: TCP
      {{- with include "poller.env" . }}
      env: {{- . | nindent 8 }}
      {{- end }}
      {{- with .Values.envFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 30
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      resources: {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/poller, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- if eq .Values.store.type "sqlite" }}
        - {name: state, mountPath: /var/lib/poller}
        {{- end }}
        {{- if .Values.api.existingSecret }}
        - {name: api, mountPath: /etc/poller-api, readOnly: true}
        {{- end }}
        {{- if include "poller.storeSecret" . }}
        - {name: store, mountPath: /etc/poller-store, readOnly: true}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    # A directory and no subPath: only so do changes of the ConfigMap reach a running pod.
    - name: config
      configMap: {name: {{ include "poller.configMap" . }}}
    - name: tmp
      emptyDir: {sizeLimit: {{ .Values.tmpSize }}}
    {{- with .Values.api.existingSecret }}
    - name: api
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- with include "poller.storeSecret" . }}
    - name: store
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- with .Values.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if .Values.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels: {{- include "poller.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "poller.env" -}}
{{- with .Values.aws.region }}
- {name: AWS_REGION, value: {{ . }}}
{{- end }}
{{- if .Values.aws.credentialsSecret }}
{{- range $name, $optional := dict "AWS_ACCESS_KEY_ID" false "AWS_SECRET_ACCESS_KEY" false "AWS_SESSION_TOKEN" true }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ $.Values.aws.credentialsSecret }}, key: {{ $name }}, optional: {{ $optional }}}
{{- end }}
{{- end }}
{{- if .Values.api.viewTokenKey }}
- name: POLLER_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .Values.api.existingSecret }}, key: {{ .Values.api.viewTokenKey }}}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The Secret with the password and authorities of a PostgreSQL store; empty without one. */ -}}
{{- define "poller.storeSecret" -}}
{{- if eq .Values.store.type "postgresql" }}{{ .Values.store.postgresql.existingSecret }}{{ end -}}
{{- end -}}
