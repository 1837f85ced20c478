{{- /* What the daemon itself has to reach: names, AWS, credentials and the store. */ -}}
{{- define "poller.egress" -}}
{{- $n := .Values.networkPolicy -}}
- to: {{- toYaml $n.dnsTo | nindent 4 }}
  ports:
    {{- range $n.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
- ports: [{port: 443, protocol: TCP}]
  {{- with $n.awsTo }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with include "poller.endpointPorts" . }}
- ports: {{- . | nindent 4 }}
{{- end }}
{{- if $n.podIdentityAgent }}
- to: [{ipBlock: {cidr: 169.254.170.23/32}}, {ipBlock: {cidr: "fd00:ec2::23/128"}}]
  ports: [{port: 80, protocol: TCP}]
{{- end }}
{{- if $n.instanceMetadata }}
- to: [{ipBlock: {cidr: 169.254.169.254/32}}]
  ports: [{port: 80, protocol: TCP}]
{{- end }}
{{- if eq .Values.store.type "postgresql" }}
- ports: {{- include "poller.storePorts" . | nindent 4 }}
  {{- with .Values.store.postgresql.egressTo }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* The ports of config.endpoint_url and config.endpoint_urls other than 443, each once. */ -}}
{{- define "poller.endpointPorts" -}}
{{- $ports := list -}}
{{- $urls := values (default dict .Values.config.endpoint_urls) -}}
{{- with .Values.config.endpoint_url }}{{ $urls = append $urls . }}{{ end -}}
{{- range $urls -}}
{{- $host := regexReplaceAll "^[a-z]+://([^/?#]*).*$" (toString .) "${1}" -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $host | trimPrefix ":" | default (ternary "80" "443" (hasPrefix "http:" (toString .)))) -}}
{{- end -}}
{{- range without ($ports | uniq | sortAlpha) "443" }}
- {port: {{ . }}, protocol: TCP}
{{- end }}
{{- end -}}
