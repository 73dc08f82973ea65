{{/* The file of --shared: where the ledger's replicas have their store in common. */}}
{{- define "chaperone.ledgerSharedStore" -}}
{{- $store := dict "postgres" .Values.ledger.shared.postgres -}}
{{- with .Values.ledger.shared.s3 }}{{ $_ := set $store "s3" . }}{{ end -}}
{{- toYaml $store -}}
{{- end -}}

{{/* Sources of the volume of --shared-secrets: each key that the file names, once, as SECRET/KEY. Nothing else of these Secrets is mounted. */}}
{{- define "chaperone.ledgerSharedSecrets" -}}
{{- $shared := .Values.ledger.shared -}}
{{- /* Paths, and whether they may be missing. */ -}}
{{- $paths := dict -}}
{{- with $shared.s3.credentialsSecret -}}
{{- $_ := set $paths (printf "%s/session-token" .name) true -}}
{{- $_ := set $paths (printf "%s/access-key-id" .name) false -}}
{{- $_ := set $paths (printf "%s/secret-access-key" .name) false -}}
{{- end -}}
{{- range compact (list $shared.postgres.tlsSecret $shared.s3.tlsSecret) -}}
{{- $_ := set $paths (printf "%s/tls.crt" .name) false -}}
{{- $_ := set $paths (printf "%s/tls.key" .name) false -}}
{{- end -}}
{{- with $shared.postgres.passwordSecret -}}
{{- $_ := set $paths (printf "%s/%s" .name .key) false -}}
{{- end -}}
{{- range $path, $optional := $paths }}
- secret: {name: {{ dir $path | quote }}, items: [{key: {{ base $path | quote }}, path: {{ $path | quote }}}]{{ if $optional }}, optional: true{{ end }}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* Refuses in words what the schema cannot say well. */}}
{{- define "chaperone.ledgerSharedCheck" -}}
{{- $postgres := .Values.ledger.shared.postgres -}}
{{- $s3 := .Values.ledger.shared.s3 -}}
{{- if and $s3 (not $postgres) -}}
{{- fail "ledger.shared.s3 is set and ledger.shared.postgres is not: segments come to the bucket out of the database. Set ledger.shared.postgres too, or leave out ledger.shared.s3" -}}
{{- end -}}
{{- if and $postgres (not .Values.ledger.enabled) -}}
{{- fail "ledger.shared.postgres is set and ledger.enabled is false: there is no ledger to have a shared store. Set ledger.enabled: true, or leave out ledger.shared" -}}
{{- end -}}
{{- if hasKey $postgres "table" -}}
{{- fail "ledger.shared.postgres.table: the ledger names its tables itself, chaperone_ledger_…, in the first schema of its user's search_path. Leave out table" -}}
{{- end -}}
{{- if hasKey $s3 "format" -}}
{{- fail "ledger.shared.s3.format: closed segments have one form. Leave out format; an AuditSink of kind s3 writes Parquet" -}}
{{- end -}}
{{- if and $postgres.allowInsecure (or $postgres.tlsSecret $postgres.caBundle) -}}
{{- fail "ledger.shared.postgres.allowInsecure: true means no TLS: leave out tlsSecret and caBundle, or allowInsecure" -}}
{{- end -}}
{{- if and $s3.endpoint (not (hasPrefix "https://" (default "" $s3.endpoint))) (not $s3.allowInsecure) -}}
{{- fail "ledger.shared.s3.endpoint must start with https:// (or set allowInsecure: true for http://)" -}}
{{- end -}}
{{- end -}}
