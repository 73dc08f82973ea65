{{/* First part of all names: the release's name. */}}
{{- define "chaperone.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of the operator's Deployment, Service, ServiceAccount and Lease. */}}
{{- define "chaperone.operator" -}}
{{- printf "%s-operator" (include "chaperone.name" .) -}}
{{- end -}}

{{/* Labels of everything. */}}
{{- define "chaperone.labels" -}}
app.kubernetes.io/name: chaperone
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: chaperone
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Labels that select the operator's pods. */}}
{{- define "chaperone.operatorSelector" -}}
app.kubernetes.io/name: chaperone
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Name of the ledger's StatefulSet, Service and ServiceAccount. */}}
{{- define "chaperone.ledger" -}}
{{- printf "%s-ledger" (include "chaperone.name" .) -}}
{{- end -}}

{{/* Labels that select the ledger's pods. */}}
{{- define "chaperone.ledgerSelector" -}}
app.kubernetes.io/name: chaperone
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: ledger
{{- end -}}

{{/* Reference of an image: (list . "operator"). */}}
{{- define "chaperone.image" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $images := $root.Values.images -}}
{{- default (printf "%s/%s:%s" $images.registry $name (default $root.Chart.AppVersion $images.tag | toString)) (index $images $name) -}}
{{- end -}}

{{/* Namespaces that injection is about: labelled, and not one of those that must work without Chaperone. */}}
{{- define "chaperone.namespaceSelector" -}}
matchExpressions:
  - key: chaperone.dev/audit
    operator: In
    values: [enabled]
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      - {{ .Release.Namespace }}
      - kube-system
{{- end -}}

{{/* Security context of our containers: as Pod Security "restricted" asks, and a read-only root. */}}
{{- define "chaperone.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Security context of our pods. */}}
{{- define "chaperone.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}
