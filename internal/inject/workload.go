package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// templates are the kinds that have pods, with the way to what is a pod or the
// template of one; never written.
var templates = []struct{ apiVersion, kind, pointer string }{
	{"v1", "Pod", ""},
	{"v1", "ReplicationController", "/spec/template"},
	{"apps/v1", "Deployment", "/spec/template"},
	{"apps/v1", "StatefulSet", "/spec/template"},
	{"apps/v1", "DaemonSet", "/spec/template"},
	{"apps/v1", "ReplicaSet", "/spec/template"},
	{"batch/v1", "Job", "/spec/template"},
	{"batch/v1", "CronJob", "/spec/jobTemplate/spec/template"},
}

// templateOf returns the way to the pod in an object of that kind; ok is false if
// there is none, or the kind is unknown.
func templateOf(apiVersion, kind string) (pointer string, ok bool) {
	for _, t := range templates {
		if t.kind == kind && t.apiVersion == apiVersion {
			return t.pointer, true
		}
	}
	return "", false
}

// Object does what [Injector.Pod] does to the pod in an object of a kind that has
// one: a Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController,
// Job or CronJob. To any other object nothing is done. Paths of the patch begin at the
// object.
func (in *Injector) Object(whole map[string]any) (*Result, error) {
	apiVersion, _ := whole["apiVersion"].(string)
	kind, _ := whole["kind"].(string)
	pointer, ok := templateOf(apiVersion, kind)
	if !ok {
		return &Result{}, nil
	}
	template, err := at(whole, pointer)
	if err != nil {
		return nil, err
	}
	if pointer != "" {
		if err := misplacedAnnotations(whole, kind, pointer); err != nil {
			return nil, err
		}
	}
	result, err := in.Pod(template)
	if err != nil {
		return nil, err
	}
	for i := range result.Patch {
		result.Patch[i].Path = pointer + result.Patch[i].Path
	}
	return result, nil
}

// at returns the object at a pointer.
func at(whole object, pointer string) (object, error) {
	path := ""
	for _, key := range tokens(pointer) {
		path = strings.TrimPrefix(path+"."+key, ".")
		next, err := part(whole, key, path)
		if err != nil {
			return nil, err
		}
		if next == nil {
			return nil, &Fault{path, errors.New("missing: there is no template of pods")}
		}
		whole = next
	}
	return whole, nil
}

// misplacedAnnotations refuses annotations for pods that stand on the object that has
// the template of pods, where they would do nothing.
func misplacedAnnotations(whole object, kind, pointer string) error {
	all, err := annotationsOf(whole)
	if err != nil {
		return nil // whatever they are, they are none of ours
	}
	for _, key := range sortedKeys(all) {
		if slices.Contains(annotations, key) {
			where := strings.ReplaceAll(strings.TrimPrefix(pointer, "/"), "/", ".")
			return &Fault{key, fmt.Errorf("stands on the %s, and its pods do not get it: write it under %s.metadata.annotations", kind, where)}
		}
	}
	return nil
}

// Asked returns the pod, or the template of pods, in an object, if that has the label
// that asks for the webhook ([Label]); nil if it has not.
func Asked(whole map[string]any) map[string]any {
	apiVersion, _ := whole["apiVersion"].(string)
	kind, _ := whole["kind"].(string)
	pointer, ok := templateOf(apiVersion, kind)
	if !ok {
		return nil
	}
	pod, err := at(whole, pointer)
	if err != nil {
		return nil
	}
	metadata, _ := part(pod, "metadata", "metadata")
	labels, _ := part(metadata, "labels", "metadata.labels")
	if labels[Label] != "enabled" {
		return nil
	}
	return pod
}
