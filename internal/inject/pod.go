package inject

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// A Result is what is to be done to a pod or to the object that has its template.
type Result struct {
	Patch    []Operation // empty: nothing is to be done
	Sidecars []string    // that the pod has then: inlet, outlet
	Warnings []string    // what whoever made the pod should know
}

// Seconds that a pod has to end where it does not say (Kubernetes' own default), and
// those that a sidecar needs once the others have ended: its drain_timeout.
const (
	defaultGrace = 30
	drainSeconds = 30
)

// A record is what [Injected] holds.
type record struct {
	Hash    string   `json:"hash"`              // of what was added
	Grace   *int64   `json:"grace,omitempty"`   // terminationGracePeriodSeconds that the pod had
	Labels  []string `json:"labels,omitempty"`  // that were added, of ownLabels
	FSGroup bool     `json:"fsGroup,omitempty"` // the group was set
}

// ownLabels are all that this package may add, with the value "true"; never written.
var ownLabels = []string{relayClient, Scrape}

// Pod returns what has to be done to a pod, or to a template with metadata and spec,
// that was decoded with UseNumber, and that it leaves as it is. A pod that has what
// its annotations ask for is not touched: what others, or a person, have since
// changed in the sidecars stays. The error joins all [Fault]s.
func (in *Injector) Pod(pod map[string]any) (*Result, error) {
	all, err := annotationsOf(pod)
	if err != nil {
		return nil, err
	}
	before, err := recordOf(all)
	if err != nil {
		return nil, err
	}
	r, err := in.read(all)
	switch {
	case err != nil:
		return nil, err
	case r == nil && before == nil:
		return &Result{}, nil
	}
	p, err := openPod(deepCopy(pod).(object))
	if err != nil {
		return nil, err
	}
	result := &Result{}
	if r != nil {
		result.Sidecars = r.sidecars()
		a := r.additions(p.once())
		if err := a.check(); err != nil {
			return nil, err
		}
		if before != nil && before.Hash == a.hash && p.has(a, r) {
			return result, nil
		}
		p.strip(before)
		if err := p.check(r); err != nil {
			return nil, err
		}
		result.Warnings = p.add(a, r)
		if err := p.checkAnnotations(); err != nil {
			return nil, err
		}
	} else {
		p.strip(before)
	}
	result.Patch = Diff(pod, p.close())
	return result, nil
}

func (r *request) sidecars() (list []string) {
	if r.Inlet != nil {
		list = append(list, "inlet")
	}
	if r.Outlet != nil {
		list = append(list, "outlet")
	}
	return list
}

// additions are what a request adds to a pod.
type additions struct {
	containers, volumes []any
	settings            map[string]string // annotations
	labels              []string          // of ownLabels
	hash                string
}

func (r *request) additions(once bool) additions {
	a := additions{containers: r.initContainers(once), volumes: r.volumes(), settings: map[string]string{}, labels: []string{relayClient}}
	if r.Scrape {
		a.labels = append(a.labels, Scrape)
	}
	if r.Inlet != nil && r.Inlet.ConfigMap == "" {
		a.settings[inletSettings] = r.inletYAML()
	}
	if r.Outlet != nil && r.Outlet.ConfigMap == "" {
		a.settings[outletSettings] = r.outletYAML()
	}
	text, err := json.Marshal([]any{a.containers, a.volumes, a.settings, a.labels})
	if err != nil {
		panic("what is added is always JSON: " + err.Error())
	}
	sum := sha256.Sum256(text)
	a.hash = hex.EncodeToString(sum[:16])
	return a
}

// check refuses settings that are larger than an annotation should be.
func (a *additions) check() error {
	f := &faults{}
	for _, s := range []struct{ settings, of, config string }{{inletSettings, Inlet, InletConfig}, {outletSettings, Outlet, OutletConfig}} {
		if len(a.settings[s.settings]) > maxSettings {
			f.addf(s.of, "makes settings of more than %d bytes, with the routes of each port, or who may use each service: put them into a ConfigMap, and name that in %s", maxSettings, s.config)
		}
	}
	return f.join()
}

// annotationsOf returns a pod's annotations.
func annotationsOf(pod object) (map[string]string, error) {
	metadata, err := part(pod, "metadata", "metadata")
	if err != nil {
		return nil, err
	}
	found, err := part(metadata, "annotations", "metadata.annotations")
	if err != nil {
		return nil, err
	}
	size := 0
	for key, v := range found {
		text, _ := v.(string)
		if size += len(key) + len(text); size > maxAnnotations {
			return nil, errTooMany
		}
	}
	f := &faults{}
	all := map[string]string{}
	for _, key := range sortedKeys(found) {
		text, ok := found[key].(string)
		if !ok {
			f.addf(plain(key), "is no text: write the annotation's value in quotes")
		}
		all[key] = text
	}
	return all, f.join()
}

// errTooMany is about annotations that Kubernetes would not take either.
var errTooMany = &Fault{"metadata.annotations", fmt.Errorf("have more than %d bytes together, which is the most that Kubernetes takes: put large ones elsewhere", maxAnnotations)}

// checkAnnotations refuses a pod whose annotations are too many with those that were
// added.
func (p *pod) checkAnnotations() error {
	size := 0
	for key, v := range p.annotations {
		text, _ := v.(string)
		size += len(key) + len(text)
	}
	if size > maxAnnotations {
		return &Fault{"metadata.annotations", fmt.Errorf("have %d bytes together with the sidecar's settings, and Kubernetes takes %d: put the settings into a ConfigMap, and name that in %s or %s", size, maxAnnotations, InletConfig, OutletConfig)}
	}
	return nil
}

// recordOf returns what was added before, nil if nothing was.
func recordOf(all map[string]string) (*record, error) {
	text, ok := all[Injected]
	if !ok {
		return nil, nil
	}
	r := &record{}
	if err := json.Unmarshal([]byte(text), r); err != nil || len(text) > MaxAnnotation {
		return nil, &Fault{Injected, errors.New("is not what was written there: take the pod's description before it was injected, without this annotation")}
	}
	return r, nil
}

// part returns the object under a key, nil if there is none.
func part(of object, key, path string) (object, error) {
	switch v := of[key].(type) {
	case nil:
		return nil, nil
	case object:
		return v, nil
	}
	return nil, &Fault{path, errors.New("is no object with keys and values")}
}

// list returns the objects of the list under a key.
func list(of object, key, path string) ([]any, error) {
	v, ok := of[key].([]any)
	if of[key] == nil || ok && !slices.ContainsFunc(v, func(e any) bool { _, is := e.(object); return !is }) {
		return v, nil
	}
	return nil, &Fault{path, errors.New("is no list of objects")}
}

// A pod is one that is being changed.
type pod struct {
	whole, metadata, spec, security object
	annotations, labels             object
	init, containers, volumes       []any
	bare                            map[string]bool // keys that are there with nothing in them
}

// openPod takes a pod apart; close puts it together.
func openPod(whole object) (*pod, error) {
	p := &pod{whole: whole, bare: map[string]bool{}}
	var faults []error
	note := func(of object, key string) {
		if v, ok := of[key]; ok && isEmpty(v) {
			p.bare[key] = true
		}
	}
	take := func(to *object, of object, key, path string) {
		note(of, key)
		o, err := part(of, key, path)
		faults = append(faults, err)
		if o == nil {
			o = object{}
		}
		*to = o
	}
	takeList := func(to *[]any, key string) {
		note(p.spec, key)
		l, err := list(p.spec, key, "spec."+key)
		faults = append(faults, err)
		*to = l
	}
	take(&p.metadata, whole, "metadata", "metadata")
	take(&p.spec, whole, "spec", "spec")
	take(&p.security, p.spec, "securityContext", "spec.securityContext")
	take(&p.annotations, p.metadata, "annotations", "metadata.annotations")
	take(&p.labels, p.metadata, "labels", "metadata.labels")
	takeList(&p.init, "initContainers")
	takeList(&p.containers, "containers")
	takeList(&p.volumes, "volumes")
	return p, errors.Join(faults...)
}

// close returns the pod as it is now. What has become empty goes, and what was
// empty stays.
func (p *pod) close() object {
	put := func(of object, key string, v any) {
		switch {
		case !isEmpty(v):
			of[key] = v
		case !p.bare[key]:
			delete(of, key)
		}
	}
	put(p.metadata, "annotations", p.annotations)
	put(p.metadata, "labels", p.labels)
	put(p.spec, "securityContext", p.security)
	put(p.spec, "initContainers", p.init)
	put(p.spec, "containers", p.containers)
	put(p.spec, "volumes", p.volumes)
	put(p.whole, "metadata", p.metadata)
	put(p.whole, "spec", p.spec)
	return p.whole
}

// isEmpty reports whether there is nothing, in whatever words.
func isEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case object:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// once reports whether the pod's containers run once and end.
func (p *pod) once() bool {
	policy, _ := p.spec["restartPolicy"].(string)
	return policy == "Never" || policy == "OnFailure"
}

// has reports whether all additions are there, the containers in their order. Those
// of other webhooks may stand before them: who would be first could go on for ever.
func (p *pod) has(a additions, r *request) bool {
	rest := p.init
	for _, c := range a.containers {
		i := slices.IndexFunc(rest, func(d any) bool { return nameOf(d) == nameOf(c) })
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
	for _, v := range a.volumes {
		if !slices.ContainsFunc(p.volumes, func(w any) bool { return nameOf(w) == nameOf(v) }) {
			return false
		}
	}
	for _, key := range []string{inletSettings, outletSettings} {
		if text, _ := p.annotations[key].(string); text != a.settings[key] {
			return false
		}
	}
	for _, key := range a.labels {
		if _, ok := p.labels[key]; !ok {
			return false
		}
	}
	_, grouped := number(p.security["fsGroup"])
	return grouped || r.IdentitySecret == ""
}

// strip takes out what was added before.
func (p *pod) strip(r *record) {
	if r == nil {
		return
	}
	p.init = without(p.init, containerNames)
	p.volumes = without(p.volumes, volumeNames)
	for _, key := range []string{Injected, inletSettings, outletSettings} {
		delete(p.annotations, key)
	}
	for _, key := range ownLabels {
		if slices.Contains(r.Labels, key) {
			delete(p.labels, key)
		}
	}
	if r.FSGroup {
		delete(p.security, "fsGroup")
		delete(p.security, "fsGroupChangePolicy")
	}
	own := int64(defaultGrace)
	if r.Grace != nil {
		own = *r.Grace
	}
	// Another number is a person's.
	if now, ok := number(p.spec["terminationGracePeriodSeconds"]); ok && now == own+drainSeconds {
		delete(p.spec, "terminationGracePeriodSeconds")
		if r.Grace != nil {
			p.spec["terminationGracePeriodSeconds"] = num(own)
		}
	}
}

func without(items []any, names []string) []any {
	return slices.DeleteFunc(items, func(e any) bool { return slices.Contains(names, nameOf(e)) })
}

// add puts in what is asked for.
func (p *pod) add(a additions, r *request) (warnings []string) {
	rec := record{Hash: a.hash}
	p.init = slices.Concat(a.containers, p.init)
	p.volumes = slices.Concat(p.volumes, a.volumes)
	for key, text := range a.settings {
		p.annotations[key] = text
	}
	for _, key := range a.labels {
		if _, ok := p.labels[key]; !ok {
			p.labels[key], rec.Labels = "true", append(rec.Labels, key)
		}
	}
	own := int64(defaultGrace)
	if n, ok := number(p.spec["terminationGracePeriodSeconds"]); ok {
		own, rec.Grace = n, &n
	}
	p.spec["terminationGracePeriodSeconds"] = num(own + drainSeconds)
	if _, ok := number(p.security["fsGroup"]); !ok && r.IdentitySecret != "" {
		p.security["fsGroup"], rec.FSGroup = num(imageUser), true
		if _, ok := p.security["fsGroupChangePolicy"]; !ok {
			p.security["fsGroupChangePolicy"] = "OnRootMismatch"
		}
		warnings = append(warnings, fmt.Sprintf("spec.securityContext.fsGroup is set to %d, so that the sidecar can read its identity: containers run with that group, too", imageUser))
	}
	if text, err := json.Marshal(rec); err == nil {
		p.annotations[Injected] = string(text)
	}
	return append(warnings, p.warnings(r)...)
}

// warnings says what works, and perhaps not as it is meant.
func (p *pod) warnings(r *request) (list []string) {
	if shared, _ := p.spec["shareProcessNamespace"].(bool); shared {
		list = append(list, fmt.Sprintf("spec.shareProcessNamespace lets the pod's other containers reach into the sidecar: those that run as root, or as user %d, can read its key", imageUser))
	}
	if r.Inlet == nil {
		return list
	}
	for _, n := range r.Inlet.Ports {
		if n.Number < 1024 {
			list = append(list, fmt.Sprintf("%s: port %d is below 1024: where the container runtime keeps such ports for root, set the sysctl net.ipv4.ip_unprivileged_port_start in the pod, or choose another port", Inlet, n.Number))
		}
	}
	return list
}

func nameOf(v any) string {
	o, _ := v.(object)
	name, _ := o["name"].(string)
	return name
}

// number returns a whole number, as it may have been decoded.
func number(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case int:
		return int64(v), true
	case int64:
		return v, true
	case float64:
		return int64(v), v == float64(int64(v))
	}
	return 0, false
}

func deepCopy(v any) any {
	switch v := v.(type) {
	case object:
		out := make(object, len(v))
		for k, e := range v {
			out[k] = deepCopy(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = deepCopy(e)
		}
		return out
	}
	return v
}
