package inject

import (
	"encoding/json"
	"slices"
	"strconv"
)

// User and group that the image runs as.
const imageUser = 65532

// The containers and volumes that are added, so named that they are in nobody's way.
const (
	inletName    = "culvert-inlet"
	outletName   = "culvert-outlet"
	identityName = "culvert-identity" // of the container that makes it, and of the volume

	inletConfigName  = "culvert-inlet-config"
	outletConfigName = "culvert-outlet-config"
	tokenName        = "culvert-token"
	inletStateName   = "culvert-inlet-state"
	outletStateName  = "culvert-outlet-state"
)

// containerNames and volumeNames are all that this package may add, in their order;
// never written.
var (
	containerNames = []string{identityName, inletName, outletName}
	volumeNames    = []string{inletConfigName, outletConfigName, identityName, tokenName, inletStateName, outletStateName}
)

// An object is a JSON object.
type object = map[string]any

// num returns a JSON number, as decoded ones are held here.
func num(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }

// initContainers returns what is to stand first among those of the pod.
func (r *request) initContainers(once bool) (list []any) {
	if r.IdentitySecret == "" {
		list = append(list, r.identityMaker())
	}
	if r.Inlet != nil {
		list = append(list, r.container("inlet", r.Inlet, r.waitsFor(once)))
	}
	if r.Outlet != nil {
		list = append(list, r.container("outlet", r.Outlet, nil))
	}
	return list
}

// waitsFor returns the arguments of the probe that a pod waits for, nil if it does
// not. once is whether its containers run once.
func (r *request) waitsFor(once bool) []any {
	switch r.Wait {
	case "false":
		return nil
	case "":
		if !once {
			return nil
		}
		if len(r.Inlet.Ports) == 1 {
			return []any{"--health", r.Inlet.Ports[0].Service}
		}
		return []any{"--health"}
	case "true":
		return []any{"--health"}
	}
	return []any{"--health", r.Wait}
}

// container returns a sidecar. health is what its startup probe asks; nil: only
// whether it is alive. Its port is called as it is: "metrics" may be the application's,
// and the names of a pod's ports are its own.
func (r *request) container(kind string, s *sidecar, health []any) object {
	name := "culvert-" + kind
	command := []any{kind, "--config", configDir + "/" + kind + ".yaml"}
	alive := object{"path": "/healthz", "port": name}
	c := object{
		"name":          name,
		"restartPolicy": "Always",
		"image":         r.Image,
		"command":       command,
		"ports":         []any{object{"name": name, "containerPort": num(int64(s.Metrics))}},
		"startupProbe": object{
			"httpGet": alive, "periodSeconds": num(1), "failureThreshold": num(30),
		},
		"livenessProbe":   object{"httpGet": alive, "periodSeconds": num(10)},
		"resources":       object{"requests": object{"cpu": r.CPURequest, "memory": r.MemoryRequest}, "limits": object{"memory": r.MemoryLimit}},
		"securityContext": restricted(),
		"volumeMounts":    r.mounts(kind),
	}
	if health != nil {
		c["startupProbe"] = object{
			"exec":          object{"command": append(slices.Clone(command), health...)},
			"periodSeconds": num(1), "timeoutSeconds": num(5), "failureThreshold": num(300),
		}
	}
	if env := r.environment(); env != nil {
		c["envFrom"] = env
	}
	r.pulled(c)
	return c
}

// identityMaker returns the container that makes an identity once, for an authority
// to vouch for.
func (r *request) identityMaker() object {
	c := object{
		"name":    identityName,
		"image":   r.Image,
		"command": []any{"culvert", "identity", "new", "-o", identityFile, "--if-missing"},
		"resources": object{
			"requests": object{"cpu": "10m", "memory": "16Mi"}, "limits": object{"memory": "64Mi"},
		},
		"securityContext": restricted(),
		"volumeMounts":    []any{object{"name": identityName, "mountPath": identityDir}},
	}
	r.pulled(c)
	return c
}

// pulled says when the image is pulled, where that is said.
func (r *request) pulled(c object) {
	if r.PullPolicy != "" {
		c["imagePullPolicy"] = r.PullPolicy
	}
}

// restricted is what the restricted Pod Security Standard asks for, whatever the
// pod's own context says.
func restricted() object {
	return object{
		"runAsNonRoot": true, "runAsUser": num(imageUser), "runAsGroup": num(imageUser),
		"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
		"capabilities":   object{"drop": []any{"ALL"}},
		"seccompProfile": object{"type": "RuntimeDefault"},
	}
}

// environment returns where the variables in settings come from.
func (r *request) environment() (list []any) {
	for _, name := range r.Variables {
		list = append(list, object{"configMapRef": object{"name": name}})
	}
	return list
}

func (r *request) mounts(kind string) []any {
	list := []any{
		object{"name": "culvert-" + kind + "-config", "mountPath": configDir, "readOnly": true},
		object{"name": identityName, "mountPath": identityDir, "readOnly": true},
	}
	if len(r.Authority) > 0 {
		list = append(list,
			object{"name": tokenName, "mountPath": tokenDir, "readOnly": true},
			object{"name": "culvert-" + kind + "-state", "mountPath": stateDir})
	}
	return list
}

// volumes returns what the sidecars mount.
func (r *request) volumes() (list []any) {
	if r.Inlet != nil {
		list = append(list, settingsVolume(inletConfigName, r.Inlet, inletSettings, "inlet.yaml"))
	}
	if r.Outlet != nil {
		list = append(list, settingsVolume(outletConfigName, r.Outlet, outletSettings, "outlet.yaml"))
	}
	if r.IdentitySecret != "" {
		list = append(list, object{"name": identityName, "secret": object{"secretName": r.IdentitySecret, "defaultMode": num(0o400)}})
	} else {
		list = append(list, memory(identityName, "1Mi"))
	}
	if len(r.Authority) == 0 {
		return list
	}
	list = append(list, object{"name": tokenName, "projected": object{"sources": []any{
		object{"serviceAccountToken": object{"audience": r.Audience, "path": "token", "expirationSeconds": num(600)}},
	}}})
	if r.Inlet != nil {
		list = append(list, memory(inletStateName, "8Mi"))
	}
	if r.Outlet != nil {
		list = append(list, memory(outletStateName, "8Mi"))
	}
	return list
}

// settingsVolume returns the volume of a sidecar's settings: of a ConfigMap, or of the pod's
// own annotation.
func settingsVolume(name string, s *sidecar, annotation, file string) object {
	if s.ConfigMap != "" {
		return object{"name": name, "configMap": object{"name": s.ConfigMap}}
	}
	return object{"name": name, "downwardAPI": object{"items": []any{
		object{"path": file, "fieldRef": object{"fieldPath": "metadata.annotations['" + annotation + "']"}},
	}}}
}

func memory(name, size string) object {
	return object{"name": name, "emptyDir": object{"medium": "Memory", "sizeLimit": size}}
}
