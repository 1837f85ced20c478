{{- /* The configuration file: what the user wrote, and what follows from the chart's own values. */ -}}
{{- define "poller.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "listen" (printf "%s:%d" .Values.bindAddress (int .Values.port)) -}}
{{- $_ := set $config "store" (include "poller.store" .) -}}
{{- $functions := default dict $config.functions -}}
{{- range $name, $function := .Values.sidecarFunctions -}}
{{- $there := dict "invoker" "http" "url" (printf "http://localhost%s" (default "/" $function.path)) "unix_socket" (include "poller.socket" $name) -}}
{{- $_ := set $functions $name (merge $there (default dict (get $functions $name))) -}}
{{- end -}}
{{- $_ := set $config "functions" $functions -}}
{{- if .Values.api.existingSecret -}}
{{- $api := dict -}}
{{- with .Values.api.accessKeysKey }}{{ $_ := set $api "access_keys_file" (printf "/etc/poller-api/%s" .) }}{{ end -}}
{{- with .Values.api.tokensKey }}{{ $_ := set $api "tokens_file" (printf "/etc/poller-api/%s" .) }}{{ end -}}
{{- $_ := set $config "api" (merge $api (default dict .Values.config.api)) -}}
{{- end -}}
{{- if .Values.mappingResources.enabled -}}
{{- $own := dict "enabled" true "namespace" (include "poller.mappingNamespace" .) -}}
{{- with .Values.mappingResources.selector }}{{ $_ := set $own "selector" . }}{{ end -}}
{{- $_ := set $config "resources" (merge $own (default dict .Values.config.resources)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- /* The namespace whose custom resources are followed. */ -}}
{{- define "poller.mappingNamespace" -}}
{{- default .Release.Namespace .Values.mappingResources.namespace -}}
{{- end -}}

{{- /* The Unix socket of a function in a container of the pod. Each has a folder of its own. */ -}}
{{- define "poller.socket" -}}
/run/functions/{{ . }}/http.sock
{{- end -}}

{{- /* What of the configuration makes pods restart when it changes; a running daemon takes over the rest. */ -}}
{{- define "poller.restartFor" -}}
{{- $mode := .Values.restartOnConfigChange -}}
{{- if and (ne $mode "never") (not .Values.existingConfigMap) -}}
{{- $config := include "poller.config" . | fromYaml -}}
{{- if eq $mode "needed" -}}
{{- $config = pick $config "region" "endpoint_url" "endpoint_urls" "identities" "listen" "store" "api" "log" "tracing" "resources" "worker" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
{{- end -}}

{{- /* The ports of the servers of a PostgreSQL store, each once. */ -}}
{{- define "poller.storePorts" -}}
{{- $ports := list -}}
{{- range .Values.store.postgresql.hosts }}{{ $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default "5432") }}{{ end -}}
{{- range uniq $ports }}
- {port: {{ . }}, protocol: TCP}
{{- end }}
{{- end -}}

{{- define "poller.store" -}}
{{- if eq .Values.store.type "sqlite" -}}
sqlite:///var/lib/poller/state.db
{{- else if eq .Values.store.type "postgresql" -}}
{{- $p := .Values.store.postgresql -}}
{{- $query := list (printf "sslmode=%s" $p.sslmode) -}}
{{- if $p.caKey }}{{ $query = append $query (printf "sslrootcert=/etc/%s/%s" (ternary "poller-store-ca" "poller-store" (ne $p.caSecret "")) $p.caKey) }}
{{- else if eq $p.sslmode "verify-full" }}{{ $query = append $query "sslrootcert=system" }}{{ end -}}
{{- with $p.passwordKey }}{{ $query = append $query (printf "password_file=/etc/poller-store/%s" .) }}{{ end -}}
{{- with $p.clientCertKey }}{{ $query = append $query (printf "sslcert=/etc/poller-store/%s" .) }}{{ end -}}
{{- with $p.clientKeyKey }}{{ $query = append $query (printf "sslkey=/etc/poller-store/%s" .) }}{{ end -}}
{{- if $p.iam }}{{ $query = append $query "iam=true" }}{{ end -}}
{{- with $p.region }}{{ $query = append $query (printf "region=%s" .) }}{{ end -}}
{{- if ne $p.schema "poller" }}{{ $query = append $query (printf "table_schema=%s" $p.schema) }}{{ end -}}
{{- if $p.create }}{{ $query = append $query "create=true" }}{{ end -}}
{{- if ne (int $p.connections) 8 }}{{ $query = append $query (printf "connections_max=%d" (int $p.connections)) }}{{ end -}}
postgresql://{{ $p.user }}@{{ join "," $p.hosts }}/{{ $p.database }}?{{ join "&" $query }}
{{- else -}}
{{- $query := list -}}
{{- if .Values.store.dynamodb.create }}{{ $query = append $query "create=true" }}{{ end -}}
{{- with .Values.store.dynamodb.region }}{{ $query = append $query (printf "region=%s" .) }}{{ end -}}
dynamodb://{{ .Values.store.dynamodb.table }}{{ if $query }}?{{ join "&" $query }}{{ end }}
{{- end -}}
{{- end -}}

{{- /* How long a pod may take to end: running invocations get grace_s, the margin is for saving and leaving. */ -}}
{{- define "poller.terminationGracePeriodSeconds" -}}
{{- $tuning := default dict .Values.config.tuning -}}
{{- $grace := default 30 $tuning.grace_s -}}
{{- if .Values.existingConfigMap }}{{ $grace = .Values.graceSeconds }}{{ end -}}
{{- addf (ceil (float64 $grace)) .Values.terminationMarginSeconds | int -}}
{{- end -}}

{{- /* What is in common to all values that mean one store: two releases with it would be one fleet. Empty where no other release can reach it. */ -}}
{{- define "poller.storeIdentity" -}}
{{- $s := .Values.store -}}
{{- if or $s.shared .Values.existingConfigMap (eq $s.type "sqlite") -}}
{{- else if eq $s.type "postgresql" -}}
postgresql {{ sortAlpha $s.postgresql.hosts | join "," }} {{ $s.postgresql.database }} {{ $s.postgresql.schema }}
{{- else -}}
dynamodb {{ default .Values.aws.region $s.dynamodb.region }} {{ $s.dynamodb.table }}
{{- end -}}
{{- end -}}
