package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/obs"
	"github.com/culvert-net/culvert/internal/systemd"
)

// A fakeRunner notes that it ran, and with what.
type fakeRunner struct {
	obs    *obs.Obs
	ctx    context.Context
	err    error
	reread func() (*config.Relay, error)
}

func (r *fakeRunner) Own(*systemd.Manager)                        {}
func (r *fakeRunner) Follow(reread func() (*config.Relay, error)) { r.reread = reread }

func (r *fakeRunner) Reload() {}

func (r *fakeRunner) Run(ctx context.Context) error { r.ctx = ctx; return r.err }

// Settings are loaded, then the runner is built, then it runs; what fails is the
// error, and nothing comes after it.
func TestServing(t *testing.T) {
	errLoad, errBuild, errRun := errors.New("load"), errors.New("build"), errors.New("run")
	for _, tt := range []struct {
		name               string
		load, build, run   error
		format             string
		wantBuilt, wantRan bool
		want               error
	}{
		{"well", nil, nil, nil, "json", true, true, nil},
		{"load", errLoad, nil, nil, "json", false, false, errLoad},
		{"log", nil, nil, nil, "xml", false, false, nil},
		{"build", nil, errBuild, nil, "json", true, false, errBuild},
		{"run", nil, nil, errRun, "json", true, true, errRun},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r *fakeRunner
			serve := Serving(config.KindRelay, func(config.Source) (*config.Relay, error) {
				return &config.Relay{Common: config.Common{LogFormat: tt.format, LogLevel: "warn"}}, tt.load
			}, func(_ *config.Relay, o *obs.Obs) (*fakeRunner, error) {
				r = &fakeRunner{obs: o, err: tt.run}
				return r, tt.build
			})
			var stderr bytes.Buffer
			err := serve(t.Context(), config.Source{}, &stderr)
			if tt.name == "log" {
				if err == nil || r != nil {
					t.Errorf("Serve: %v, built %v; want an error about the log format", err, r != nil)
				}
				return
			}
			if !errors.Is(err, tt.want) || (r != nil) != tt.wantBuilt || r != nil && (r.ctx != nil) != tt.wantRan {
				t.Errorf("Serve: %v, built %v; want %v, %v", err, r != nil, tt.want, tt.wantBuilt)
			}
			if tt.wantRan {
				if again, err := r.reread(); err != nil || again.LogLevel != "warn" {
					t.Errorf("the settings read again: %+v, %v", again, err)
				}
			}
			if r == nil {
				return
			}
			r.obs.Log.Info("not shown")
			r.obs.Log.Warn("shown")
			if got := stderr.String(); !bytes.Contains([]byte(got), []byte(`"logger":"relay","msg":"shown"`)) || bytes.Contains([]byte(got), []byte("not shown")) {
				t.Errorf("the log is %q, want one line of JSON, of relay", got)
			}
		})
	}
}

// The end of the caller's context ends a daemon with 0.
func TestDaemonEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	d := Daemon{Kind: config.KindRelay, Serve: func(ctx context.Context, _ config.Source, _ io.Writer) error {
		close(started)
		<-ctx.Done()
		return nil
	}}
	go func() { <-started; cancel() }()
	var out bytes.Buffer
	if code := d.Run(ctx, nil, &out, &out); code != ExitOK || out.Len() > 0 {
		t.Errorf("exit code %d, output %q; want 0 and none", code, &out)
	}
}
