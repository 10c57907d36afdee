package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// LoadInlet reads an inlet's settings. The error is a [Faults].
func LoadInlet(src Source) (*Inlet, error) {
	d, root := start(KindInlet, src)
	return finish(d, d.inlet, root)
}

// LoadInletWays is LoadInlet for one who goes the inlet's ways and does not listen:
// where that is to be need not be said, and what is wrong with it is passed over, as is
// what is wrong with files of secrets, for which such a one has no use.
func LoadInletWays(src Source) (*Inlet, error) {
	d, root := start(KindInlet, src)
	return finish(d, func(root *value) *Inlet {
		c := d.inlet(root)
		d.faults = slices.DeleteFunc(d.faults, func(f *Fault) bool {
			return f.Key == "metrics" || f.Key == "admin" || f.Key == "ticket_file" || f.Key == join(tracingSection, "headers_file") || strings.HasPrefix(f.Key, "services[") && strings.HasSuffix(f.Key, "].listen")
		})
		return c
	}, root)
}

// LoadOutlet reads an outlet's settings. The error is a [Faults].
func LoadOutlet(src Source) (*Outlet, error) {
	d, root := start(KindOutlet, src)
	return finish(d, d.outlet, root)
}

// LoadRelay reads a relay's settings. The error is a [Faults].
func LoadRelay(src Source) (*Relay, error) {
	d, root := start(KindRelay, src)
	return finish(d, d.relay, root)
}

// LoadAuthority reads an authority's settings. The error is a [Faults].
func LoadAuthority(src Source) (*Authority, error) {
	d, root := start(KindAuthority, src)
	return finish(d, d.authority, root)
}

// LoadEndpoints reads only where a process of that kind serves its metrics and
// admin endpoints, for a probe, which has no use for the rest: other faults are
// passed over, as far as the file is YAML. The error is a [Faults].
func LoadEndpoints(kind Kind, src Source) (metrics Address, admin string, err error) {
	d, root := start(kind, src)
	if root == nil {
		return Address{}, "", d.faults
	}
	c := d.section(root, "").common()
	var own Faults
	for _, f := range d.faults {
		if f.Key == "metrics" || f.Key == "admin" {
			own = append(own, f)
		}
	}
	if own != nil {
		return Address{}, "", own
	}
	return c.Metrics, c.Admin, nil
}

// start reads the file, if there is one, and puts flags and variables over it.
// root is nil if nothing can be read from it.
func start(kind Kind, src Source) (d *decoder, root *value) {
	d = &decoder{kind: kind, origins: map[string]Origin{}}
	env := newEnviron(src.Environ)
	over := d.overlay(src, env)
	root = &value{shape: shapeMap}
	if file, at, ok := d.fileName(src, env); ok {
		d.file = file
		if root = d.readFile(file, at, env); root == nil {
			return d, nil
		}
	}
	d.strayVariables(env)
	d.merge(root, over)
	return d, root
}

// finish decodes root, unless it is nil, and reports all that was found.
func finish[T any](d *decoder, decode func(*value) *T, root *value) (*T, error) {
	var c *T
	if root != nil {
		c = decode(root)
	}
	if len(d.faults) > 0 {
		return nil, d.faults.sorted()
	}
	return c, nil
}

// fileName returns the settings file's name and where that came from.
func (d *decoder) fileName(src Source, env *environ) (name string, at Origin, ok bool) {
	texts, at := fromFlag(src.Flags, configFlag), Origin{Name: "--" + configFlag}
	if texts == nil {
		v, _ := env.lookup(configVariable)
		if v = strings.TrimSpace(v); v == "" {
			return "", Origin{}, false
		}
		return v, Origin{Name: configVariable}, true
	}
	if len(texts) > 1 {
		d.fault(at, "", "given %d times: give it once", len(texts))
	}
	return texts[len(texts)-1], at, true
}

// readFile returns the section that a file is, expanded, or nil.
func (d *decoder) readFile(file string, at Origin, env *environ) *value {
	d.info, _ = os.Stat(file) // an error is that of reading it
	data, err := readFile(file)
	if err != nil {
		d.faults = append(d.faults, &Fault{At: at, Err: fmt.Errorf("settings file %s: %w", quote(file), err)})
		return nil
	}
	d.text = fileText(data)
	root, faults := parseYAML(file, data)
	d.faults = append(d.faults, faults...)
	if root == nil {
		return nil
	}
	if root.shape != shapeMap {
		return nil
	}
	if f := wrongKind(root, file, d.kind); f != nil {
		d.faults = append(d.faults, f)
		return nil
	}
	d.faults = append(d.faults, expandAll(root, "", env)...)
	return root
}

// explainOpen takes the path, which the caller's text has, out of an error of
// the file system, and says what to do.
func explainOpen(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: check the name and the folder", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: let this user read it", err)
	}
	return err
}

// resolve returns the path as it can be opened: one in a file is relative to
// the file's folder.
func resolve(path string, at Origin) string {
	if at.File == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(at.File), path)
}

// A Report is what Check found out about a file.
type Report struct {
	Kind     Kind
	Summary  string // "2 services"
	Identity string // the private identity file's path
	Common   *Common
	Outlet   *Outlet // of KindOutlet
	Relay    *Relay  // of KindRelay
}

// Check validates a settings file for itself, without flags and variables of
// the CULVERT_ kind (${NAME} is expanded from environ). kind "" detects whose
// file it is. It does not read the identity file. The error is a [Faults].
func Check(file string, kind Kind, environ []string) (*Report, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, Faults{{At: Origin{File: file}, Err: err}}
	}
	root, faults := parseYAML(file, data)
	if root == nil || root.shape != shapeMap {
		return nil, faults
	}
	if kind == "" {
		if kind, _ = detect(root); kind == "" {
			return nil, append(faults, &Fault{At: Origin{File: file}, Err: errors.New("cannot tell whose settings these are: say so with --kind inlet, outlet, relay, authority or webhook")})
		}
	} else if f := wrongKind(root, file, kind); f != nil {
		return nil, append(faults, f)
	}
	d := &decoder{kind: kind, file: file, text: fileText(data), origins: map[string]Origin{}, faults: faults, elsewhere: true}
	d.faults = append(d.faults, expandAll(root, "", newEnviron(environ))...)
	return d.report(root)
}

// report decodes root as the decoder's kind.
func (d *decoder) report(root *value) (*Report, error) {
	r := &Report{Kind: d.kind}
	switch d.kind {
	case KindInlet:
		c := d.inlet(root)
		r.Common, r.Summary = &c.Common, plural(len(c.Services), "service", "services")
	case KindOutlet:
		c := d.outlet(root)
		r.Outlet, r.Common, r.Summary = c, &c.Common, plural(len(c.Services), "service", "services")
	case KindRelay:
		c := d.relay(root)
		r.Relay, r.Common, r.Summary = c, &c.Common, plural(len(c.Listen), "address", "addresses")
	case KindAuthority:
		c := d.authority(root)
		r.Common, r.Summary = &c.Common, plural(len(c.Relays)+len(c.Listen), "way to it", "ways to it")
	case KindWebhook:
		c := d.webhook(root)
		r.Common, r.Summary = &c.Common, plural(len(c.Sidecar.Routes), "route", "routes")+" by default"
	default:
		return nil, Faults{{Err: fmt.Errorf("%s is no kind of settings: want inlet, outlet, relay, authority or webhook", quote(string(d.kind)))}}
	}
	if len(d.faults) > 0 {
		return nil, d.faults.sorted()
	}
	r.Identity = r.Common.Identity
	return r, nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{KindInlet, KindOutlet, KindRelay, KindAuthority, KindWebhook} }
