// Package inject owns what "culvert inject" and the admission webhook do to a pod:
// from its annotations it writes an inlet, an outlet or both into it, as native
// sidecars (initContainers with restartPolicy Always, Kubernetes 1.29 and later),
// with their settings, identity, probes and time to end. A change is a JSON patch
// (RFC 6902) of what was given: what the package does not know of a pod stays as
// it is.
//
// It asks no cluster, reads no file and serves nothing.
package inject

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/culvert-net/culvert/pkg/code"
)

// The annotations of a pod, or of the template of one. A value has at most
// [MaxAnnotation] bytes. ${NAME} in one is a variable out of [Variables].
const (
	// Inlet is what an inlet listens at, on the pod's loopback, and which service is
	// behind it: "5432=orders-db", or "5432=orders-db@IDENTIFIER" of the outlet whose
	// service it is; several separated by commas or line ends.
	Inlet = "culvert.dev/inlet"
	// InletConfig is the ConfigMap of an inlet with settings of its own, inlet.yaml.
	InletConfig = "culvert.dev/inlet-config"
	// Outlet is what an outlet offers, and where that is: "orders-db=5432" on the
	// pod's loopback, or "orders-db=HOST:PORT"; separated as in Inlet.
	Outlet = "culvert.dev/outlet"
	// OutletConfig is the ConfigMap of an outlet with settings of its own,
	// outlet.yaml.
	OutletConfig = "culvert.dev/outlet-config"
	// Allow is who may use the services of Outlet: identifiers, separated by white
	// space or commas, or one expression (docs/policy.md).
	Allow = "culvert.dev/allow"
	// Routes are an inlet's alternative routes, best first, and those at whose last
	// hop an outlet registers; separated by white space.
	Routes = "culvert.dev/routes"
	// IdentitySecret is the Secret with the private identity file, identity.key.
	// Without it an inlet makes its identity when its pod starts.
	IdentitySecret = "culvert.dev/identity-secret" //nolint:gosec // the name of an annotation
	// Authority is the way to the authority that enrols the pod by its
	// ServiceAccount token: routes, separated by white space, that all end at it.
	Authority = "culvert.dev/authority"
	// Variables are ConfigMaps, separated by white space or commas, whose keys are
	// variables in the other annotations and in settings.
	Variables = "culvert.dev/variables"
	// Wait says whether the pod's other containers start only when a service can be
	// reached: "true" for all of the sidecar's, "false", or one service's name.
	// Without it, those of pods that run once (restartPolicy Never and OnFailure).
	Wait = "culvert.dev/wait"
	// MetricsPort is the sidecar's port for probes and metrics, 9100 without it. An
	// outlet beside an inlet has the next one.
	MetricsPort = "culvert.dev/metrics-port"
	// Scrape is whether the pod gets the label of the same name, by which Prometheus finds
	// the ports of its sidecars' metrics: "true", as without it, or "false".
	Scrape = "culvert.dev/scrape"
	// CPURequest, MemoryRequest and MemoryLimit are the sidecar's resources.
	CPURequest    = "culvert.dev/cpu-request"
	MemoryRequest = "culvert.dev/memory-request"
	MemoryLimit   = "culvert.dev/memory-limit"

	// Injected is written by this package: what it has added, so that it can be
	// replaced.
	Injected = "culvert.dev/injected"
	// inletSettings and outletSettings are written by this package: the settings that
	// a sidecar reads, by a volume of the downward API.
	inletSettings  = "culvert.dev/inlet.yaml"
	outletSettings = "culvert.dev/outlet.yaml"

	// Label, with the value "enabled" on a pod, asks the webhook for it.
	Label = "culvert.dev/inject"
	// relayClient is the label by which network policies let a pod reach relays.
	relayClient = "culvert.dev/relay-client"
)

// prefix is what annotations of this project begin with.
const prefix = "culvert.dev/"

// annotations are those that people write; never written.
var annotations = []string{
	Inlet, InletConfig, Outlet, OutletConfig, Allow, Routes, IdentitySecret, Authority,
	Variables, Wait, MetricsPort, Scrape, CPURequest, MemoryRequest, MemoryLimit,
}

// Bounds of what is read.
const (
	MaxAnnotation = 16 << 10 // bytes of one annotation
	maxEntries    = 64       // ports of an inlet, services of an outlet, routes, variables

	// maxAnnotations bounds all annotations of an object together, with their names, in
	// bytes, as Kubernetes does (TotalAnnotationSizeLimitB of apimachinery).
	maxAnnotations = 256 << 10
	// maxSettings bounds the settings that annotations make, which are annotations
	// themselves, in bytes: routes are written again for each port, and who may use a
	// service for each service.
	maxSettings = 96 << 10
)

// DefaultImage is the image of the sidecars where nothing else is said.
const DefaultImage = "ghcr.io/culvert-net/culvert:dev"

// Defaults are what holds where a pod's annotations say nothing. They hold text as
// annotations do. The zero value names the image and the resources of deploy/k8s,
// and nothing else.
type Defaults struct {
	Image          string            // of the sidecars
	PullPolicy     string            // Always, IfNotPresent or Never; "": what Kubernetes takes
	Routes         []string          // as the annotation has them
	Outlets        map[string]string // by service: the identifier of the outlet whose service it is
	IdentitySecret string
	Authority      []string // routes to it
	Audience       string   // of the ServiceAccount token; "": culvert
	Variables      []string // names of ConfigMaps
	CPURequest     string
	MemoryRequest  string
	MemoryLimit    string
}

// An Injector injects with the same defaults into all pods. It may be used by
// several goroutines at once.
type Injector struct{ defaults Defaults }

// New makes an Injector. The error names the default that is at fault.
func New(d Defaults) (*Injector, error) {
	for field, text := range map[*string]string{
		&d.Image: DefaultImage, &d.Audience: "culvert",
		&d.CPURequest: "100m", &d.MemoryRequest: "64Mi", &d.MemoryLimit: "512Mi",
	} {
		if *field == "" {
			*field = text
		}
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return &Injector{d}, nil
}

// check returns what is wrong with the defaults, all of it.
func (d *Defaults) check() error {
	var faults []error
	fault := func(what string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("default %s: %w", what, err))
		}
	}
	if d.Image == "" || strings.ContainsAny(d.Image, " \t\r\n") || len(d.Image) > 512 {
		fault("image", fmt.Errorf("%q is no name of an image: write one like %s", d.Image, DefaultImage))
	}
	if !slices.Contains([]string{"", "Always", "IfNotPresent", "Never"}, d.PullPolicy) {
		fault("image pull policy", fmt.Errorf("%q: want Always, IfNotPresent or Never", d.PullPolicy))
	}
	if d.Audience == "" || strings.ContainsAny(d.Audience, " \t\r\n") {
		fault("audience", fmt.Errorf("%q is no audience of a token", d.Audience))
	}
	_, err := parseRoutes(strings.Join(d.Routes, " "))
	fault("route", err)
	_, err = parseAuthority(strings.Join(d.Authority, " "))
	fault("authority", err)
	for service, outlet := range d.Outlets {
		fault("outlet of "+service, errors.Join(checkService(service), checkIdentifier(outlet)))
	}
	for _, name := range slices.Concat(d.Variables, []string{d.IdentitySecret}) {
		if name != "" {
			fault("name of a ConfigMap or Secret", checkName(name))
		}
	}
	fault("CPU request", checkQuantity(d.CPURequest))
	fault("memory request", checkQuantity(d.MemoryRequest))
	fault("memory limit", checkQuantity(d.MemoryLimit))
	return errors.Join(faults...)
}

// A Fault is an annotation that cannot be followed, or a part of the pod that is in
// the way of one.
type Fault struct {
	Where string // the annotation's name, or the path of the field, as in "spec.hostNetwork"
	Err   error  // what is wrong, and what to write
}

// Error names the place first.
func (f *Fault) Error() string { return f.Where + ": " + f.Err.Error() }

// Unwrap returns f.Err.
func (f *Fault) Unwrap() error { return f.Err }

// maxFaults is how many faults are told of at once. Annotations are anybody's, and
// whoever has more to mend begins with these.
const maxFaults = 16

// errMore stands behind maxFaults of them.
var errMore = errors.New("there are more faults: mend these first")

// faults collect what is wrong with a pod, up to maxFaults.
type faults struct {
	list []error
	more bool // some were left off
}

func (f *faults) add(where string, err error) {
	switch {
	case err == nil:
	case f.full():
		f.more = true
	default:
		f.list = append(f.list, &Fault{where, err})
	}
}

func (f *faults) addf(where, format string, args ...any) {
	if f.full() {
		f.more = true
		return
	}
	f.add(where, fmt.Errorf(format, args...))
}

// full reports whether another fault would be left off.
func (f *faults) full() bool { return len(f.list) == maxFaults }

// join returns the faults as one error, nil if there are none.
func (f *faults) join() error {
	if f.more {
		return errors.Join(append(slices.Clone(f.list), errMore)...)
	}
	return errors.Join(f.list...)
}

// quantity is a resource quantity of Kubernetes, without exponents and signs, which
// nobody writes here.
var quantity = regexp.MustCompile(`^[0-9]{1,18}(\.[0-9]{1,9})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$`)

func checkQuantity(text string) error {
	if !quantity.MatchString(text) {
		return fmt.Errorf("%s is no quantity: write one like 100m for CPU, 64Mi for memory", show(text))
	}
	return nil
}

// name is that of a ConfigMap or Secret (RFC 1123, a DNS subdomain).
var name = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func checkName(text string) error {
	if len(text) > 253 || !name.MatchString(text) {
		return fmt.Errorf("%s is no name of an object: a to z, 0 to 9, hyphens and dots", show(text))
	}
	return nil
}

// show quotes a text of somebody's, without the end of a long one.
func show(text string) string {
	const most = 80
	if len(text) > most {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(text[:most], ""))
	}
	return fmt.Sprintf("%q", text)
}

// maxName is how long the name of anything in Kubernetes may be, in bytes: that of an
// annotation, a DNS name, a slash and a label.
const maxName = 253 + 1 + 63

// plain returns a name of somebody's as an error has it without quotes: without the end
// of one that is too long, and without what is not printed.
func plain(name string) string {
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return code.Printable(name)
}
