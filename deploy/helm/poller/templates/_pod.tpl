{{- define "poller.podTemplate" -}}
metadata:
  labels:
    {{- include "poller.podLabels" . | nindent 4 }}
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
  {{- if or .Values.initContainers .Values.sidecarFunctions }}
  initContainers:
    {{- with .Values.initContainers }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- range $name, $function := .Values.sidecarFunctions }}{{ include "poller.sidecar" (dict "name" $name "function" $function) | nindent 4 }}{{ end }}
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
        {{- if .Values.mappingResources.enabled }}
        - {name: kube-api, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
        {{- end }}
        {{- with include "poller.storeMounts" . }}{{ . | nindent 8 }}{{ end }}
        {{- range $name, $_ := .Values.sidecarFunctions }}
        - {name: function-{{ $name }}, mountPath: {{ include "poller.socket" $name | dir }}, readOnly: true}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
    {{- with .Values.extraContainers }}{{ toYaml . | nindent 4 }}{{ end }}
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
    {{- if .Values.mappingResources.enabled }}
    # The daemon's way to the API server. Other containers of the pod get no token.
    - name: kube-api
      projected:
        defaultMode: 0440
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3600}
          - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
          - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
    {{- end }}
    {{- with include "poller.storeVolumes" . }}{{ . | nindent 4 }}{{ end }}
    {{- range $name, $_ := .Values.sidecarFunctions }}
    - name: function-{{ $name }}
      emptyDir: {medium: Memory, sizeLimit: 1Mi}
    {{- end }}
    {{- with .Values.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if and .Values.topologySpread.enabled .Values.topologySpread.keys }}
  topologySpreadConstraints:
    {{- range .Values.topologySpread.keys }}
    - maxSkew: {{ $.Values.topologySpread.maxSkew }}
      topologyKey: {{ . }}
      whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
      {{- with $.Values.topologySpread.matchLabelKeys }}
      matchLabelKeys: {{- toYaml . | nindent 8 }}
      {{- end }}
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

{{- /* A function in a container of its own. As an init container that goes on, it is there before the daemon and ends after it, so
       that the daemon can finish what runs. */ -}}
{{- define "poller.sidecar" -}}
{{- $own := list (dict "name" "SOCKET" "value" (include "poller.socket" .name)) -}}
{{- $safe := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- range $key, $value := .function.securityContext }}{{ $_ := set $safe $key $value }}{{ end -}}
- name: function-{{ .name }}
  image: {{ .function.image | quote }}
  restartPolicy: Always
  securityContext: {{- toYaml $safe | nindent 4 }}
  env: {{- concat $own (default list .function.env) | toYaml | nindent 4 }}
  {{- with omit .function "image" "path" "securityContext" "env" "volumeMounts" }}{{ toYaml . | nindent 2 }}{{ end }}
  volumeMounts:
    - {name: function-{{ .name }}, mountPath: {{ include "poller.socket" .name | dir }}}
    {{- with .function.volumeMounts }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}

{{- define "poller.env" -}}
{{- with include "poller.awsEnv" . }}
{{ . }}
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

{{- /* What calls of AWS need, of the daemon and of `helm test`. */ -}}
{{- define "poller.awsEnv" -}}
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
{{- if include "poller.awsCa" . }}
- {name: AWS_CA_BUNDLE, value: /etc/poller-aws-ca/{{ .Values.aws.ca.key }}}
{{- end }}
{{- end -}}

{{- define "poller.awsCa" -}}
{{- with .Values.aws.ca -}}
{{- if .existingSecret }}secret: {secretName: {{ .existingSecret }}, defaultMode: 0440}
{{- else if .existingConfigMap }}configMap: {name: {{ .existingConfigMap }}}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* Files that the store needs, and AWS's clients: of the daemon and of `helm test`. */ -}}
{{- define "poller.storeMounts" -}}
{{- if include "poller.storeSecret" . }}
- {name: store, mountPath: /etc/poller-store, readOnly: true}
{{- end }}
{{- if include "poller.storeCaSecret" . }}
- {name: store-ca, mountPath: /etc/poller-store-ca, readOnly: true}
{{- end }}
{{- if include "poller.awsCa" . }}
- {name: aws-ca, mountPath: /etc/poller-aws-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "poller.storeVolumes" -}}
{{- with include "poller.storeSecret" . }}
- name: store
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with include "poller.storeCaSecret" . }}
- name: store-ca
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with include "poller.awsCa" . }}
- name: aws-ca
  {{ . }}
{{- end }}
{{- end -}}

{{- /* The Secret with the password and authorities of a PostgreSQL store; empty without one. */ -}}
{{- define "poller.storeSecret" -}}
{{- if eq .Values.store.type "postgresql" }}{{ .Values.store.postgresql.existingSecret }}{{ end -}}
{{- end -}}

{{- define "poller.storeCaSecret" -}}
{{- if eq .Values.store.type "postgresql" }}{{ .Values.store.postgresql.caSecret }}{{ end -}}
{{- end -}}
