package inject

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// check reports what in a pod, from which nothing of ours is left, is in the way of
// what is asked for.
func (p *pod) check(r *request) error {
	f := &faults{}
	p.checkHost(f)
	p.checkNames(f)
	p.checkPorts(r, f)
	p.checkGrace(f)
	if r.IdentitySecret != "" {
		p.checkGroup(f)
	}
	return f.join()
}

// checkHost refuses pods in which a sidecar would not be alone with its pod, or
// could not run.
func (p *pod) checkHost(f *faults) {
	if on, _ := p.spec["hostNetwork"].(bool); on {
		f.addf("spec.hostNetwork", "the pod's loopback is that of its node, where everybody else could use the sidecar's ports: remove hostNetwork, or run Culvert on the node itself")
	}
	system, _ := part(p.spec, "os", "spec.os")
	selector, _ := part(p.spec, "nodeSelector", "spec.nodeSelector")
	if system["name"] == "windows" {
		f.addf("spec.os", "there is no image of Culvert for Windows: inject into pods of Linux only")
	} else if selector["kubernetes.io/os"] == "windows" {
		f.addf("spec.nodeSelector", "there is no image of Culvert for Windows: inject into pods of Linux only")
	}
	if len(p.containers) == 0 {
		f.addf("spec.containers", "the pod has no container that a sidecar could be beside")
	}
}

// maxGrace is the longest time to end that is understood, in seconds: a century.
const maxGrace = 100 * 365 * 24 * 60 * 60

// checkGrace refuses a time to end to which the sidecar's cannot be added.
func (p *pod) checkGrace(f *faults) {
	const key = "terminationGracePeriodSeconds"
	if v := p.spec[key]; v != nil {
		if n, ok := number(v); !ok || n < 0 || n > maxGrace {
			f.addf("spec."+key, "is no number of seconds from 0 to %d: write one, or leave it out for %d", maxGrace, defaultGrace)
		}
	}
}

// checkNames refuses names that are taken.
func (p *pod) checkNames(f *faults) {
	for field, items := range p.allContainers {
		for i, c := range items {
			if slices.Contains(containerNames, nameOf(c)) {
				f.addf(fmt.Sprintf("spec.%s[%d]", field, i), "the name %s is the sidecar's: rename the container, or remove one that was written by hand", nameOf(c))
			}
		}
	}
	for i, v := range p.volumes {
		if slices.Contains(volumeNames, nameOf(v)) {
			f.addf(fmt.Sprintf("spec.volumes[%d]", i), "the name %s is that of a sidecar's volume: rename it", nameOf(v))
		}
	}
}

// allContainers yields the pod's lists of containers, with their names.
func (p *pod) allContainers(yield func(field string, items []any) bool) {
	_ = yield("initContainers", p.init) && yield("containers", p.containers)
}

// checkPorts refuses ports that are taken. Init containers run beside a sidecar,
// too, which starts before them.
func (p *pod) checkPorts(r *request, f *faults) {
	taken := p.ports()
	use := func(n uint16, annotation, whose, otherwise string) {
		if who := taken[n]; who != "" {
			f.addf(annotation, "port %d is %s's: %s", n, who, otherwise)
		}
		taken[n] = whose
	}
	if r.Inlet != nil {
		for _, n := range r.Inlet.Ports {
			use(n.Number, Inlet, "the inlet", fmt.Sprintf("choose another port for %s, and give that to the application", n.Service))
		}
		use(r.Inlet.Metrics, MetricsPort, "the inlet's metrics", "write another one here")
	}
	if r.Outlet != nil {
		use(r.Outlet.Metrics, MetricsPort, "the outlet's metrics", "write another one here")
		p.checkLoop(r, f)
	}
}

// checkLoop refuses an outlet that would offer what the inlet beside it listens at.
func (p *pod) checkLoop(r *request, f *faults) {
	if r.Inlet == nil {
		return
	}
	for _, s := range r.Outlet.Services {
		host, number, err := net.SplitHostPort(s.Target)
		if err != nil || host != "127.0.0.1" && !strings.EqualFold(host, "localhost") {
			continue
		}
		for _, n := range r.Inlet.Ports {
			if number == strconv.Itoa(int(n.Number)) {
				f.addf(Outlet, "%s leads to port %d, which is the inlet's for %s: write the port of the program that is the service", s.Name, n.Number, n.Service)
			}
		}
	}
}

// ports returns the TCP ports that containers say they listen at, and whose they are.
func (p *pod) ports() map[uint16]string {
	taken := map[uint16]string{}
	for _, items := range p.allContainers {
		for _, c := range items {
			o, _ := c.(object)
			declared, _ := o["ports"].([]any)
			for _, d := range declared {
				one, _ := d.(object)
				if protocol, _ := one["protocol"].(string); protocol != "" && protocol != "TCP" {
					continue
				}
				if n, ok := number(one["containerPort"]); ok && n > 0 && n < 1<<16 {
					taken[uint16(n)] = "container " + plain(nameOf(c))
				}
			}
		}
	}
	return taken
}

// harmless are the kinds of volumes whose files no group is set for, or which are
// made for the pod; never written.
var harmless = []string{"emptyDir", "configMap", "secret", "projected", "downwardAPI", "hostPath", "image"}

// checkGroup refuses to set a group where that would change files that stay: a
// database that finds its files writable by a group does not start.
func (p *pod) checkGroup(f *faults) {
	if _, ok := number(p.security["fsGroup"]); ok {
		return
	}
	if volume := p.lasting(); volume != "" {
		f.addf("spec.securityContext.fsGroup", "missing: the sidecar reads its identity by that group, and setting it changes the files of the volume %s, too: "+
			"write the group that its program can live with (%d, or its own), and fsGroupChangePolicy: OnRootMismatch", show(volume), imageUser)
	}
}

// lasting returns the name of a volume that outlives the pod, "" if there is none.
func (p *pod) lasting() string {
	known := map[string]bool{}
	for _, v := range p.volumes {
		o, _ := v.(object)
		ok := len(o) <= 1
		for _, kind := range harmless {
			_, is := o[kind]
			ok = ok || is
		}
		if !ok {
			return nameOf(v)
		}
		known[nameOf(v)] = true
	}
	// What a template mounts and does not have is a claim of its StatefulSet.
	for _, items := range p.allContainers {
		for _, c := range items {
			o, _ := c.(object)
			mounts, _ := o["volumeMounts"].([]any)
			for _, m := range mounts {
				if !known[nameOf(m)] {
					return nameOf(m)
				}
			}
		}
	}
	return ""
}
