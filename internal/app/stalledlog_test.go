package app

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
)

// Nobody reads the logs any more, as with a terminal that was stopped or a
// collector that hangs: everything works but the logs. Streams go on, over other
// paths too, new clients are served, the status is told, and each process stops
// in time.
func TestLogsThatNobodyReads(t *testing.T) {
	t.Parallel()
	sys, w := startDirect(t, nil, func(c *config.Inlet) { c.Metrics = local(0) })
	old := dialTCP(t, sys.inlet.Addrs()[0])
	wantEcho(t, old, "hello")
	release := []func(){sys.inletLog.stall(t), sys.outletLog.stall(t)}
	// More than a pipe and the queue hold.
	for _, log := range []*zap.Logger{sys.inlet.log, sys.outlet.log} {
		for range 3 << 20 >> 10 {
			log.Info("flood", zap.ByteString("text", bytes.Repeat([]byte("x"), 1000)))
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for range 5 {
		w.cut()
		wantEcho(t, old, "still here")
		nc := dialTCP(t, sys.inlet.Addrs()[0])
		wantEcho(t, nc, "here, too")
		_ = nc.Close()
		resp, err := client.Get("http://" + sys.inlet.Endpoints().MetricsAddr().String() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("not ready: %s", body)
		}
		if st := sys.inlet.Status().Channels[0]; st.Path == nil || !st.Path.Up {
			t.Errorf("status without a path: %+v", st)
		}
	}
	_ = old.Close()
	if n := metric(t, sys.inlet.obs, "culvert_log_dropped_total"); n == 0 {
		t.Error("no line was dropped")
	}
	for _, stop := range []func(){sys.stopInlet, sys.stopOutlet} {
		watch := testenv.Start(t)
		stop()
		if took := watch.Took(); took > 5*time.Second {
			t.Errorf("stopped after %s", took)
		}
	}
	for _, f := range release {
		f()
	}
}
