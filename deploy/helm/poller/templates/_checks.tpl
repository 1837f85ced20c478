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
{{- range list "enabled" "namespace" "selector" }}
{{- if and (hasKey (default dict $v.config.resources) .) (or $v.mappingResources.enabled (not (dig "resources" "kubeconfig" "" $v.config))) }}
{{- fail (printf "config.resources.%s: the chart writes it; set mappingResources.%s instead, which gives the daemon its role too" . .) }}
{{- end }}
{{- end }}
{{- $p := $v.store.postgresql }}
{{- if and (eq $v.store.type "postgresql") (not $p.hosts) }}
{{- fail "store.postgresql.hosts: name a server at least, such as [db.example.com]" }}
{{- end }}
{{- if and (or $p.passwordKey $p.clientCertKey (and $p.caKey (not $p.caSecret))) (not $p.existingSecret) }}
{{- fail "store.postgresql.passwordKey, store.postgresql.caKey, store.postgresql.clientCertKey: name the Secret that has them: store.postgresql.existingSecret" }}
{{- end }}
{{- if and $p.existingSecret (not $p.passwordKey) (not $p.clientCertKey) (or (not $p.caKey) $p.caSecret) }}
{{- fail "store.postgresql.existingSecret: say which of its keys is which: store.postgresql.passwordKey, store.postgresql.caKey or store.postgresql.clientCertKey" }}
{{- end }}
{{- if and $p.caSecret (not $p.caKey) }}
{{- fail "store.postgresql.caSecret: say which of its keys has the authorities: store.postgresql.caKey" }}
{{- end }}
{{- if ne (empty $p.clientCertKey) (empty $p.clientKeyKey) }}
{{- fail "store.postgresql.clientCertKey, store.postgresql.clientKeyKey: a certificate and its key belong together; write both" }}
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
{{- fail "autoscaling: store.type is sqlite, which has one replica; take store.type dynamodb or postgresql" }}
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
{{- $ca := $v.aws.ca }}
{{- if and $ca.existingSecret $ca.existingConfigMap }}
{{- fail "aws.ca: existingSecret and existingConfigMap are both set; keep one" }}
{{- end }}
{{- range $name, $function := $v.sidecarFunctions }}
{{- if semverCompare "<1.29.0-0" $.Capabilities.KubeVersion.Version }}
{{- fail "sidecarFunctions: containers that outlive the daemon need Kubernetes 1.29" }}
{{- end }}
{{- $own := default dict (get (default dict $v.config.functions) $name) }}
{{- range list "url" "unix_socket" }}
{{- if hasKey $own . }}
{{- fail (printf "config.functions.%s.%s: the chart writes it for sidecarFunctions.%s; remove it" $name . $name) }}
{{- end }}
{{- end }}
{{- if ne (default "http" $own.invoker) "http" }}
{{- fail (printf "config.functions.%s.invoker: sidecarFunctions.%s is called by http; remove one of the two" $name $name) }}
{{- end }}
{{- end }}
{{- if and (eq (toString $v.rollout.maxSurge) "0") (eq (toString $v.rollout.maxUnavailable) "0") }}
{{- fail "rollout.maxUnavailable: it is 0, and so is rollout.maxSurge; no pod could ever be replaced" }}
{{- end }}
{{- end -}}
