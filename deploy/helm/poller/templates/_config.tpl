{{- /* The configuration file: what the user wrote, and what follows from the chart's own values. */ -}}
{{- define "poller.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "listen" (printf "%s:%d" .Values.bindAddress (int .Values.port)) -}}
{{- $_ := set $config "store" (include "poller.store" .) -}}
{{- if .Values.api.existingSecret -}}
{{- $api := dict -}}
{{- with .Values.api.accessKeysKey }}{{ $_ := set $api "access_keys_file" (printf "/etc/poller-api/%s" .) }}{{ end -}}
{{- with .Values.api.tokensKey }}{{ $_ := set $api "tokens_file" (printf "/etc/poller-api/%s" .) }}{{ end -}}
{{- $_ := set $config "api" (merge $api (default dict .Values.config.api)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- /* What of the configuration makes pods restart when it changes; a running daemon takes over the rest. */ -}}
{{- define "poller.restartFor" -}}
{{- $mode := .Values.restartOnConfigChange -}}
{{- if and (ne $mode "never") (not .Values.existingConfigMap) -}}
{{- $config := include "poller.config" . | fromYaml -}}
{{- if eq $mode "needed" -}}
{{- $config = pick $config "region" "endpoint_url" "endpoint_urls" "identities" "listen" "store" "api" "log" "tracing" "worker" -}}
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
{{- if $p.caKey }}{{ $query = append $query (printf "sslrootcert=/etc/poller-store/%s" $p.caKey) }}
{{- else if eq $p.sslmode "verify-full" }}{{ $query = append $query "sslrootcert=system" }}{{ end -}}
{{- with $p.passwordKey }}{{ $query = append $query (printf "password_file=/etc/poller-store/%s" .) }}{{ end -}}
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

{{- /* What a schema cannot say well. */ -}}
{{- define "poller.checks" -}}
{{- $v := .Values -}}
{{- if hasKey $v.config "listen" }}
{{- fail "config.listen: the chart writes it; set bindAddress and port instead" }}
{{- end }}
{{- if hasKey $v.config "store" }}
{{- fail "config.store: the chart writes it; set store.type and store.dynamodb.table, store.postgresql.hosts or store.sqlite.size instead" }}
{{- end }}
{{- if hasKey $v.config "worker" }}
{{- fail "config.worker: all replicas would have one name; leave it out, and each pod's own name is used" }}
{{- end }}
{{- $p := $v.store.postgresql }}
{{- if and (eq $v.store.type "postgresql") (not $p.hosts) }}
{{- fail "store.postgresql.hosts: name a server at least, such as [db.example.com]" }}
{{- end }}
{{- if and (or $p.passwordKey $p.caKey) (not $p.existingSecret) }}
{{- fail "store.postgresql.passwordKey, store.postgresql.caKey: name the Secret that has them: store.postgresql.existingSecret" }}
{{- end }}
{{- if and $p.existingSecret (not $p.passwordKey) (not $p.caKey) }}
{{- fail "store.postgresql.existingSecret: say which of its keys is which: store.postgresql.passwordKey, store.postgresql.caKey or both" }}
{{- end }}
{{- if and $p.iam $p.passwordKey }}
{{- fail "store.postgresql.iam: store.postgresql.passwordKey is set too; keep one" }}
{{- end }}
{{- if and $p.iam (has $p.sslmode (list "disable" "allow" "prefer")) }}
{{- fail "store.postgresql.iam: its token goes over TLS alone; set store.postgresql.sslmode to verify-full" }}
{{- end }}
{{- if and (eq $p.sslmode "verify-ca") (not $p.caKey) }}
{{- fail "store.postgresql.sslmode: verify-ca needs store.postgresql.caKey, or set verify-full" }}
{{- end }}
{{- if and $v.existingConfigMap (or $v.config.mappings $v.config.functions) }}
{{- fail "existingConfigMap: config.functions and config.mappings are set too and would have no effect; remove one of the two" }}
{{- end }}
{{- if and $v.existingConfigMap (kindIs "invalid" $v.graceSeconds) }}
{{- fail "graceSeconds: write the tuning.grace_s of existingConfigMap (30 if it has none); the pods' termination grace period follows from it" }}
{{- end }}
{{- if and (not $v.existingConfigMap) (not (kindIs "invalid" $v.graceSeconds)) }}
{{- fail "graceSeconds: only for existingConfigMap; set config.tuning.grace_s instead" }}
{{- end }}
{{- if and $v.api.existingSecret (not $v.api.accessKeysKey) (not $v.api.tokensKey) }}
{{- fail "api.existingSecret: say which of its keys is which file: api.accessKeysKey, api.tokensKey or both" }}
{{- end }}
{{- if and (not $v.api.existingSecret) (or $v.api.accessKeysKey $v.api.tokensKey $v.api.viewTokenKey) }}
{{- fail "api.accessKeysKey, api.tokensKey, api.viewTokenKey: name the Secret that has them: api.existingSecret" }}
{{- end }}
{{- $a := $v.autoscaling }}
{{- if and $a.keda.enabled $a.hpa.enabled }}
{{- fail "autoscaling: KEDA makes an autoscaler of its own; enable keda or hpa, and not both" }}
{{- end }}
{{- if eq (include "poller.autoscaled" .) "true" }}
{{- if eq $v.store.type "sqlite" }}
{{- fail "autoscaling: store.type is sqlite, which has one replica; take store.type dynamodb" }}
{{- end }}
{{- if gt (int $a.minReplicas) (int $a.maxReplicas) }}
{{- fail "autoscaling.minReplicas: it is greater than autoscaling.maxReplicas" }}
{{- end }}
{{- if and (eq (int $a.minReplicas) 0) (not (and $a.keda.enabled (or $a.keda.queues $a.keda.triggers))) }}
{{- fail "autoscaling.minReplicas: without a replica nobody recommends one; set it to 1, or enable keda and name what starts the first one: autoscaling.keda.queues or autoscaling.keda.triggers" }}
{{- end }}
{{- end }}
{{- if and (eq (int $a.minReplicas) 0) (eq (include "poller.autoscaled" .) "true") (not $a.keda.triggers) }}
{{- range $v.config.mappings }}
{{- if regexMatch "^arn:[^:]+:(kinesis|dynamodb):" (toString .EventSourceArn) }}
{{- fail (printf "autoscaling.minReplicas: without a replica nobody notices records of %s; set it to 1, or name what starts the first one: autoscaling.keda.triggers" .EventSourceArn) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $a.keda.enabled (not $v.api.viewTokenKey) (not $v.existingConfigMap) (ne (dig "api" "reads" "" $v.config) "open") }}
{{- fail "autoscaling.keda: KEDA must read /v1/scaling; name a token (api.existingSecret, api.viewTokenKey), or set config.api.reads: open" }}
{{- end }}
{{- if and $v.aws.credentialsSecret $v.serviceAccount.roleArn }}
{{- fail "aws.credentialsSecret: serviceAccount.roleArn is set too, and the keys would win over the role; remove one of the two" }}
{{- end }}
{{- if and $v.serviceAccount.roleArn (not $v.serviceAccount.create) }}
{{- fail "serviceAccount.roleArn: the service account is not the chart's (serviceAccount.create is false); annotate it yourself with eks.amazonaws.com/role-arn" }}
{{- end }}
{{- end -}}
