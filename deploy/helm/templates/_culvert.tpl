{{/* The image, for this chart and for one that has it as a dependency. */}}
{{- define "culvert.values" -}}
{{- $own := get .Values "culvert" | default .Values -}}
{{- toJson $own -}}
{{- end }}

{{- define "culvert.image" -}}
{{- $v := include "culvert.values" . | fromJson -}}
{{ $v.image.repository }}:{{ $v.image.tag }}
{{- end }}

{{- define "culvert.pullPolicy" -}}
{{- $v := include "culvert.values" . | fromJson -}}
{{ $v.image.pullPolicy }}
{{- end }}

{{/* A relay's settings: what the manifests fix comes after what values say. */}}
{{- define "culvert.relay.config" -}}
{{- $fixed := dict "identity" "/run/culvert/identity/identity.key" "listen" (list "tcp://0.0.0.0:4000") "metrics" "0.0.0.0:9100" -}}
{{- $default := dict "admin" "127.0.0.1:9101" -}}
{{- if .Values.authority.enabled -}}
{{- $default = merge $default (dict "authority" (dict "identifier" "${AUTHORITY}" "routes" (list "tcp://authority:4100/${AUTHORITY}")) "kubernetes_token" "/run/culvert/token/token" "state" "/var/lib/culvert") -}}
{{- end -}}
{{- toYaml (mergeOverwrite $default (deepCopy .Values.relay.config) $fixed) -}}
{{- end }}

{{- define "culvert.authority.config" -}}
{{- $fixed := dict "identity" "/run/culvert/identity/identity.key" "store" "/var/lib/culvert/authority.db" "listen" (list "tcp://0.0.0.0:4100") "admin" "unix:///tmp/authority.sock" "metrics" "0.0.0.0:9100" -}}
{{- $server := "/var/run/secrets/kubernetes.io/serviceaccount" -}}
{{- $cluster := dict "kubernetes" (dict "audience" "culvert" "jwks_url" "https://kubernetes.default.svc/openid/v1/jwks" "ca_file" (printf "%s/ca.crt" $server) "bearer_token_file" (printf "%s/token" $server)) -}}
{{- $default := dict "routes" (list "tcp://authority:4100/${AUTHORITY}") -}}
{{- toYaml (mergeOverwrite $default $cluster (deepCopy .Values.authority.config) $fixed) -}}
{{- end }}

{{/* What pods get that ask the webhook: this image, and the way to these relays. */}}
{{- define "culvert.webhook.config" -}}
{{- $dir := "/run/culvert/certificate" -}}
{{- $sidecar := dict "image" (include "culvert.image" .) "image_pull_policy" (include "culvert.pullPolicy" .) -}}
{{- if .Values.relay.enabled -}}
{{- $_ := set $sidecar "routes" (list (printf "tcp://relay.%s.svc:4000/${RELAY}" .Release.Namespace)) -}}
{{- end -}}
{{- $fixed := dict "listen" "0.0.0.0:8443" "certificate" (printf "%s/tls.crt" $dir) "key" (printf "%s/tls.key" $dir) "metrics" "0.0.0.0:9100" -}}
{{- toYaml (merge $fixed (dict "sidecar" (mergeOverwrite $sidecar (deepCopy .Values.webhook.sidecar)))) -}}
{{- end }}

{{/* What a member of the authority mounts beside: nothing, where there is none. */}}
{{- define "culvert.memberMounts" -}}
{{- $v := include "culvert.values" . | fromJson -}}
{{- if $v.authority.enabled -}}
- {name: token, mountPath: /run/culvert/token, readOnly: true}
- {name: state, mountPath: /var/lib/culvert}
{{- end -}}
{{- end }}

{{- define "culvert.memberVolumes" -}}
{{- $v := include "culvert.values" . | fromJson -}}
{{- if $v.authority.enabled -}}
- name: token
  projected:
    sources:
      - serviceAccountToken: {audience: culvert, path: token, expirationSeconds: 600}
- name: state
  emptyDir: {medium: Memory, sizeLimit: 8Mi}
{{- end -}}
{{- end }}

{{/*
The sidecars, as items of a pod's initContainers, and their volumes: of the ConfigMap
with inlet.yaml or outlet.yaml, and of the Secret with identity.key. Without a Secret
the pod makes its identity when it starts, which an authority then has to vouch for.

  initContainers:
    {{- include "culvert.identity" . | nindent 4 }}      only without a Secret
    {{- include "culvert.inlet" . | nindent 4 }}
  volumes:
    {{- include "culvert.volumes" (dict "context" . "config" "inlet" "identity" "inlet-identity") | nindent 4 }}
*/}}
{{- define "culvert.inlet" -}}
- name: inlet
  restartPolicy: Always
  image: {{ include "culvert.image" . }}
  imagePullPolicy: {{ include "culvert.pullPolicy" . }}
  command: [inlet, --config, /etc/culvert/inlet.yaml]
  envFrom:
    - configMapRef: {name: identifiers}
  ports:
    - {name: metrics, containerPort: 9100}
  startupProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 1
    failureThreshold: 30
  livenessProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 10
  resources:
    requests: {cpu: 100m, memory: 64Mi}
    limits: {memory: 512Mi}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
  volumeMounts:
    - {name: config, mountPath: /etc/culvert, readOnly: true}
    - {name: identity, mountPath: /run/culvert/identity, readOnly: true}
{{- include "culvert.memberMounts" . | nindent 4 }}
{{- end }}

{{- define "culvert.outlet" -}}
- name: outlet
  restartPolicy: Always
  image: {{ include "culvert.image" . }}
  imagePullPolicy: {{ include "culvert.pullPolicy" . }}
  command: [outlet, --config, /etc/culvert/outlet.yaml]
  envFrom:
    - configMapRef: {name: identifiers}
  ports:
    - {name: metrics, containerPort: 9100}
  startupProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 1
    failureThreshold: 30
  livenessProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 10
  resources:
    requests: {cpu: 100m, memory: 64Mi}
    limits: {memory: 512Mi}
  securityContext:
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
  volumeMounts:
    - {name: config, mountPath: /etc/culvert, readOnly: true}
    - {name: identity, mountPath: /run/culvert/identity, readOnly: true}
{{- include "culvert.memberMounts" . | nindent 4 }}
{{- end }}

{{- define "culvert.identity" -}}
- name: identity
  image: {{ include "culvert.image" . }}
  imagePullPolicy: {{ include "culvert.pullPolicy" . }}
  command: [culvert, identity, new, -o, /run/culvert/identity/identity.key, --if-missing]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
  volumeMounts:
    - {name: identity, mountPath: /run/culvert/identity}
{{- end }}

{{- define "culvert.volumes" -}}
- name: config
  configMap: {name: {{ .config }}}
- name: identity
  {{- if get . "identity" }}
  secret: {secretName: {{ .identity }}, defaultMode: 0400}
  {{- else }}
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
  {{- end }}
{{ include "culvert.memberVolumes" .context }}
{{- end }}
