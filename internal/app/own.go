package app

import (
	"errors"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/sandbox"
	"github.com/culvert-net/culvert/internal/systemd"
	"github.com/culvert-net/culvert/pkg/route"
)

// Own says that the process is this daemon's alone. So it may confine itself, where
// the settings let it, and whoever has started it is told how it is: m, or nobody where
// that is nil. It is called before Listen and Run.
func (b *base) Own(m *systemd.Manager) {
	b.owned, b.manager = true, m
	b.sockets = m.Sockets()
}

// confine keeps the process from opening what its settings do not name, as far as
// this system can. It is called when all is open that only the start opens.
func (b *base) confine() {
	if !b.owned || b.common.Sandbox == config.SandboxOff {
		return
	}
	report, err := sandbox.Confine(b.files())
	switch {
	case err == nil:
		b.confined, b.resolves = true, report.Resolves
		b.log.Info("this process is confined to its files: it opens nothing else from now on", zap.Int("landlock", report.ABI),
			zap.Strings("read", report.Read), zap.Strings("written", report.Written))
	case errors.Is(err, sandbox.ErrUnavailable):
		b.log.Info("this process is not confined to its files", zap.Error(err))
	default:
		b.log.Error("this process is not confined to its files", zap.Error(err))
	}
}

// files returns what this process opens after its start.
func (b *base) files() sandbox.Files {
	c, f := b.common, b.needs
	f.Read = append(slices.Clone(f.Read), c.Identity)
	if c.File() != "" {
		f.Read = append(f.Read, c.File())
	}
	switch c.Audit {
	case "", config.AuditStdout, config.AuditStderr:
	default:
		f.Append = append(slices.Clone(f.Append), c.Audit)
	}
	if c.State != "" {
		f.Folders = append(slices.Clone(f.Folders), c.State)
	}
	if path, ok := strings.CutPrefix(c.Admin, "unix://"); ok {
		f.Sockets = append(slices.Clone(f.Sockets), path)
	}
	f.Names = f.Names || hasNames(b.member.routes...)
	return f
}

// lacks reports whether this process is confined so that it cannot look up hosts as
// files of other settings want it.
func (b *base) lacks(f sandbox.Files) bool { return f.Names && b.confined && !b.resolves }

// beyond adds to an error of the file system that the sandbox may be why.
func (b *base) beyond(err error) error {
	if err != nil && b.confined && errors.Is(err, fs.ErrPermission) {
		return &confinedError{err}
	}
	return err
}

// A confinedError is one that a process has had that may not open everything.
type confinedError struct{ err error }

// Error says what to do, too.
func (e *confinedError) Error() string {
	return e.err.Error() + " (this process opens only what its settings named at its start: restart it, or start it with \"sandbox: off\")"
}

// Unwrap returns the file system's error.
func (e *confinedError) Unwrap() error { return e.err }

// hasNames reports whether a host of the routes is to be looked up.
func hasNames(routes ...route.Route) bool {
	return slices.ContainsFunc(routes, func(r route.Route) bool {
		return slices.ContainsFunc(r, func(h route.Hop) bool { return isName(h.Host) })
	})
}

// isName reports whether a host is a name that somebody else may give another address.
func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && host != "localhost"
}

// tracesNames reports whether a host is to be looked up to reach a collector of traces:
// its own, or that of the proxy that the environment names for it.
func tracesNames(t *config.Tracing) bool {
	if t.Endpoint == "" {
		return false
	}
	at, err := url.Parse(t.Endpoint)
	if err != nil {
		return true // nobody knows
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: at}); err == nil && proxy != nil {
		at = proxy
	}
	return isName(at.Hostname())
}

// trustFiles are what a process opens to have a credential.
func trustFiles(t *config.Trust) (f sandbox.Files) {
	for _, path := range []string{t.KubernetesToken, t.TicketFile} {
		if path != "" {
			f.Read = append(f.Read, path)
		}
	}
	return f
}

// traceFiles are what a process reads again with its settings, to send traces.
func traceFiles(t *config.Tracing) (read []string) {
	if t.HeadersFile != "" {
		read = append(read, t.HeadersFile)
	}
	return read
}

// inletFiles are what an inlet opens beside what all do.
func inletFiles(c *config.Inlet) sandbox.Files {
	f := trustFiles(&c.Trust)
	f.Read = append(f.Read, traceFiles(&c.Tracing)...)
	f.Names = tracesNames(&c.Tracing)
	for i := range c.Services {
		f.Names = f.Names || hasNames(c.Services[i].Routes...)
		if path := c.Services[i].Listen.Path; path != "" {
			f.Sockets = append(f.Sockets, path)
		}
	}
	return f
}

// outletFiles are those of an outlet.
func outletFiles(c *config.Outlet) sandbox.Files {
	f := trustFiles(&c.Trust)
	f.Read = append(f.Read, traceFiles(&c.Tracing)...)
	f.Names = hasNames(c.Relays...) || tracesNames(&c.Tracing)
	for i := range c.Services {
		s := &c.Services[i]
		f.Names = f.Names || s.Target.Host != "" && isName(s.Target.Host)
		if s.TLS == nil {
			continue
		}
		for _, path := range []string{s.TLS.CAFile, s.TLS.CertFile, s.TLS.KeyFile} {
			if path != "" {
				f.Read = append(f.Read, path)
			}
		}
	}
	return f
}

// relayFiles are those of a relay. Where an expression says where callers are carried
// on to, they may name any host.
func relayFiles(c *config.Relay) sandbox.Files {
	f := trustFiles(&c.Trust)
	f.Names = len(c.Extend.To) == 0 && c.Extend.Allow != nil
	for _, a := range c.Extend.To {
		f.Names = f.Names || isName(a.Host)
	}
	return f
}

// authorityFiles are those of an authority, whose store is also read anew for a
// backup.
func authorityFiles(c *config.Authority) sandbox.Files {
	f := sandbox.Files{Folders: []string{filepath.Dir(c.Store)}, Names: hasNames(c.Relays...)}
	if k := c.Kubernetes; k != nil {
		f.Names = true
		for _, path := range []string{k.KeysFile, k.CAFile, k.BearerTokenFile} {
			if path != "" {
				f.Read = append(f.Read, path)
			}
		}
	}
	return f
}
