package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/internal/inject"
	"github.com/culvert-net/culvert/internal/obs"
)

// containerLimit is the memory that the manifests give a webhook, in bytes.
const containerLimit = 384 << 20

// reviewOf returns a review of an object.
func reviewOf(object string) string {
	return `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "object": ` + object + `}}`
}

// fill repeats a text, with commas between, up to so many bytes or times.
func fill(text string, bytes, times int) string {
	n := min(bytes/(len(text)+1), times)
	return strings.Repeat(text+",", n-1) + text
}

// hostile are reviews that cost as much as they can, by what they have much of.
func hostile() map[string]string {
	const size = maxReview - 2<<10 // what is around it has room in the rest
	pod := func(annotations, spec string) string {
		return reviewOf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"culvert.dev/inject": "enabled"}, "annotations": {` + annotations + `}}, "spec": {` + spec + `}}`)
	}
	containers := func(text string, times int) string { return `"containers": [` + fill(text, size, times) + `]` }
	const most = maxValues - 200 // so many values are just taken
	annotations := func(key func(i int) string) string {
		var all []string
		for size := 0; size < 250<<10; {
			next := fmt.Sprintf("%q: %q", key(len(all)), "x")
			all, size = append(all, next), size+len(next)
		}
		return strings.Join(all, ",")
	}
	route := "tcp://relay:4000/" + strings.Repeat("b", 51) + "a"
	var ports, services []string
	for i := range 64 {
		ports = append(ports, fmt.Sprintf("%d=orders-db", 10000+i))
		services = append(services, fmt.Sprintf("s%d=%d", i, 10000+i))
	}
	policy := func(expression string) string {
		text, err := json.Marshal(expression)
		if err != nil {
			panic(err)
		}
		return pod(`"culvert.dev/outlet": "s=1", "culvert.dev/allow": `+string(text), containers(`{"name": "a"}`, 1))
	}
	const long = 8 << 10 // bytes, more is not compiled (docs/policy.md)
	inlet := `"culvert.dev/inlet": "` + strings.Join(ports, ",") + `"`
	return map[string]string{
		"nesting":                 reviewOf(strings.Repeat("[", 9000) + strings.Repeat("]", 9000)),
		"nesting that is skipped": `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "oldObject": ` + strings.Repeat(`{"a":`, 4900) + "1" + strings.Repeat("}", 4900) + `, "object": {}}}`,
		"numbers":                 pod(inletPod, containers(`{"name": "a"}`, 1)+`, "x": [`+fill("1", size, most)+`]`),
		"numbers without a bound": pod(inletPod, `"x": [`+fill("1", size, math.MaxInt)+`]`),
		"empty lists":             pod(inletPod, containers(`{"name": "a"}`, 1)+`, "x": [`+fill("[]", size, most/2)+`]`),
		"small objects":           pod(inletPod, containers(`{"name": "a"}`, 1)+`, "x": [`+fill(`{"":0}`, size, most/2)+`]`),
		"objects without a bound": pod(inletPod, containers(`{"a":{}}`, math.MaxInt)),
		"containers":              pod(inletPod, containers(`{"name": "a", "ports": [{"containerPort": 1}]}`, most/6)),
		"containers that clash":   pod(inletPod, containers(`{"name": "culvert-inlet"}`, most/2)),
		"long names that clash":   pod(inletPod, `"containers": [{"name": "`+strings.Repeat("a", size-1<<10)+`", "ports": [`+fill(`{"containerPort": 5432}`, 1<<10, 16)+`]}]`),
		"long text":               pod(inletPod, containers(`{"name": "a", "command": ["`+strings.Repeat(`\u003c`, size/6-1<<10)+`"]}`, 1)),
		"misspelt annotations":    pod(annotations(func(i int) string { return fmt.Sprintf("culvert.dev/%d", i) }), containers(`{"name": "a"}`, 1)),
		"long annotations":        pod(annotations(func(i int) string { return fmt.Sprintf("culvert.dev/%d%s", i, strings.Repeat("<", 20<<10)) }), containers(`{"name": "a"}`, 1)),
		"many annotations":        pod(strings.Repeat(`"culvert.dev/inlet": "1=a",`, 1<<12)+annotations(func(i int) string { return fmt.Sprint(i) }), containers(`{"name": "a"}`, 1)),
		"annotations of 2 MiB":    pod(`"a": "`+strings.Repeat("a", size-1<<10)+`"`, containers(`{"name": "a"}`, 1)),
		"long routes":             pod(inlet+`, "culvert.dev/routes": "`+strings.ReplaceAll(fill(route, 15<<10, 60), ",", " ")+`"`, containers(`{"name": "a"}`, 1)),
		"long policies": pod(`"culvert.dev/outlet": "`+strings.Join(services, ",")+`", "culvert.dev/variables": "a", "culvert.dev/allow": "${A}`+strings.Repeat(`\u0001`, 15<<10)+`"`,
			containers(`{"name": "a"}`, 1)),
		"policy of terms":        policy(strings.Repeat("true||", long/6-1) + "true"),
		"policy of brackets":     policy(strings.Repeat("(", long/2-4) + "true" + strings.Repeat(")", long/2-4)),
		"policy of lists":        policy(strings.Repeat("[", long)),
		"policy of maps":         policy(strings.Repeat("{1:", long/3)),
		"policy of signs":        policy(strings.Repeat("!", long-4) + "true"),
		"policy of fields":       policy("peer" + strings.Repeat(".a", long/2-2)),
		"policy of alternatives": policy(strings.Repeat("true?", long/6) + strings.Repeat(":", long/6)),
		"policy of macros":       policy(strings.Repeat("[1].all(x,", long/12) + strings.Repeat(")", long/12)),
		"policy of faults":       policy(strings.Repeat("@ ", long/2)),
		"what was injected": pod(inletPod+`, "culvert.dev/injected": "{}"`,
			containers(`{"name": "a"}`, 1)+`, "initContainers": [`+fill(`{"name": "culvert-inlet"},{"name": "b"}`, size, most/8)+`], "volumes": [`+fill(`{"name": "culvert-token"},{"name": "c"}`, size, most/8)+`]`),
	}
}

// bareServer answers reviews without a listener.
func bareServer(t testing.TB) *Server {
	t.Helper()
	in, err := inject.New(inject.Defaults{
		Routes: []string{"tcp://relay:4000/" + strings.Repeat("b", 51) + "a"}, IdentitySecret: "inlet-identity",
		Outlets: map[string]string{"orders-db": strings.Repeat("c", 51) + "a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	o, err := obs.New(obs.Config{Command: "webhook", LogOutput: &strings.Builder{}})
	if err != nil {
		t.Fatal(err)
	}
	return &Server{cfg: Config{Injector: in}, obs: o, log: o.Log, reviews: newReviewMetrics(o.Registry), gate: newGate(), lines: newLines()}
}

// A review allocates, from its bytes to its answer, no more than a bound, whatever is in
// it: as many as are decided about at once fit into half of what a container has, though
// nothing of it were given back meanwhile; and the answer is short.
func TestHostileReviewsAllocate(t *testing.T) {
	const most = containerLimit / 2 / maxDeciding
	s := bareServer(t)
	worst, which := uint64(0), ""
	for what, text := range hostile() {
		body := []byte(text)
		if len(body) > maxReview {
			t.Fatalf("%s: has %d bytes, which are not read", what, len(body))
		}
		answered := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodPost, "/inject", nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s.answer(t.Context(), answered, request, body, s.injectPod, time.Now())
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		if used > worst {
			worst, which = used, what
		}
		if used > most {
			t.Errorf("%s: allocates %d MiB, want %d at most", what, used>>20, most>>20)
		}
		if n := answered.Body.Len(); n > 2*maxReview { // a patch has base64 of what was in the place of something else
			t.Errorf("%s: the answer has %d bytes", what, n)
		}
	}
	t.Logf("the worst, %s, allocates %d MiB", which, worst>>20)
}

// More hostile reviews at once than there is place for: the process stays within the
// memory of its container, with those who send them in it, too.
func TestHostileReviewsAtOnce(t *testing.T) {
	before := debug.SetMemoryLimit(containerLimit) // as GOMEMLIMIT does in the manifests
	defer debug.SetMemoryLimit(before)
	r := start(t)
	texts := hostile()
	var all sync.WaitGroup
	var answered atomic.Int64
	for i := range 2 * maxReading {
		c := r.client(t) // a connection of its own
		all.Go(func() {
			for n, what := range slices.Sorted(maps.Keys(texts)) {
				if (n+i)%16 != 0 { // each is sent by two of them
					continue
				}
				resp, err := c.Post("https://"+r.Addr().String()+"/inject", "application/json", strings.NewReader(texts[what]))
				if err != nil {
					t.Logf("%s: %v", what, err) // it has been too slow
					continue
				}
				resp.Body.Close()
				answered.Add(1)
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		all.Wait()
	}()
	peak := peakUntil(ended)
	t.Logf("%d were answered, with at most %d MiB", answered.Load(), peak>>20)
	if peak > containerLimit || answered.Load() == 0 {
		t.Errorf("the process had %d MiB, its container has %d; %d reviews were answered", peak>>20, containerLimit>>20, answered.Load())
	}
}

// peakUntil looks at the process' memory until something has ended, and returns the most.
func peakUntil(ended <-chan struct{}) (peak uint64) {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		peak = max(peak, memory())
		select {
		case <-ended:
			return peak
		case <-look.C:
		}
	}
}

// memory returns what GOMEMLIMIT bounds, in bytes.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// An object that is not decoded is refused with a reason, and its UID.
func TestLargeObject(t *testing.T) {
	r := start(t)
	c := r.client(t)
	for _, extra := range []string{strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), "[" + fill("1", maxReview, maxValues) + "]"} {
		got := r.ask(t, c, "/inject", strings.Replace(podWith(inletPod), `"spec": {`, `"spec": {"x": `+extra+", ", 1))
		if got.Allowed || got.Status == nil || !strings.Contains(got.Status.Message, "culvert inject") {
			t.Errorf("%.20s: got %+v, want it refused", extra, got)
		}
	}
	if n := r.counted(t, "culvert_webhook_reviews_total", resultRefused); n != 2 {
		t.Errorf("%v are counted as refused, want 2", n)
	}
}

// What is counted without decoding is what is there.
func TestModest(t *testing.T) {
	for _, tt := range []struct {
		text string
		want bool
	}{
		{`{}`, true},
		{`{"a": "` + strings.Repeat(`[,\"`, maxValues) + `"}`, true}, // a text is one value
		{strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), true},
		{strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), false},
		{strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1), false},
		{"[" + fill("1", math.MaxInt, maxValues-2) + "]", true},
		{"[" + fill("1", math.MaxInt, maxValues+1) + "]", false},
		{"[" + fill(`""`, math.MaxInt, maxValues+1) + "]", false},
	} {
		if !json.Valid([]byte(tt.text)) {
			t.Fatalf("%.40s is no JSON", tt.text)
		}
		if got := modest([]byte(tt.text)); got != tt.want {
			t.Errorf("%.40s, %d bytes: got %v, want %v", tt.text, len(tt.text), got, tt.want)
		}
	}
}

// Places go to those who wait in the order in which they came, and who has no time left
// goes without one.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		for range maxDeciding {
			if err := enter(t.Context(), g.deciding); err != nil {
				t.Fatal(err)
			}
		}
		order := make(chan int, 10)
		for i := range 10 {
			go func() {
				if enter(t.Context(), g.deciding) == nil {
					order <- i
				}
			}()
			synctest.Wait()
		}
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := enter(ctx, g.deciding); err != errBusy || time.Since(begun) != 3*time.Second {
			t.Errorf("got %v after %v, want %v after 3 s", err, time.Since(begun), errBusy)
		}
		for want := range 10 {
			leave(g.deciding)
			if got := <-order; got != want {
				t.Errorf("a place went to %d, want %d", got, want)
			}
		}
		for range maxWaiting {
			if err := g.admit(); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.admit(); err != errBusy {
			t.Errorf("one too many: got %v, want %v", err, errBusy)
		}
	})
}

// Who hangs up while there is time left is gone; an API server whose own time is over,
// which it has said rounded up, has found no place in it.
func TestGateTellsWhoIsGone(t *testing.T) {
	for _, tt := range []struct {
		patience, hangsUp time.Duration // 0: none, never
		want              error
	}{
		{10 * time.Second, 0, errBusy},
		{10 * time.Second, time.Nanosecond, errGone},
		{10 * time.Second, 10*time.Second - lastMoment - time.Nanosecond, errGone},
		{10 * time.Second, 10*time.Second - lastMoment, errBusy},
		{10 * time.Second, 9 * time.Second, errBusy},
		{time.Second, time.Millisecond, errBusy}, // its time may have been no longer than that
		{0, time.Hour, errGone},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, hangUp := context.WithCancel(t.Context())
			defer hangUp()
			want := tt.patience
			if tt.hangsUp > 0 {
				want = tt.hangsUp
				time.AfterFunc(tt.hangsUp, hangUp)
			}
			if tt.patience > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.patience)
				defer cancel()
			}
			begun := time.Now()
			if err := enter(ctx, make(chan struct{})); err != tt.want || time.Since(begun) != want {
				t.Errorf("with %v, hung up after %v: got %v after %v, want %v", tt.patience, tt.hangsUp, err, time.Since(begun), tt.want)
			}
		})
	}
}

func TestPatience(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": maxPatience, "timeout=3s": 3 * time.Second, "timeout=30s": maxPatience, "timeout=-1s": maxPatience, "timeout=soon": maxPatience, "timeout=1h&timeout=1s": maxPatience,
	} {
		parameters, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := patience(parameters); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

// A review for which there is no place in its time is sent away, counted and told of, and
// the next one is answered.
func TestOverloaded(t *testing.T) {
	r := start(t)
	c := r.client(t)
	for range maxDeciding {
		r.gate.deciding <- struct{}{}
	}
	if status, text := r.post(t, c, "/inject?timeout=10ms", "application/json", reviewOf("{}")); status != http.StatusServiceUnavailable || !strings.Contains(string(text), "too many") {
		t.Errorf("got %d %s, want %d", status, text, http.StatusServiceUnavailable)
	}
	if n := r.counted(t, "culvert_webhook_reviews_total", resultOverloaded); n != 1 {
		t.Errorf("%v are counted as overloaded, want 1", n)
	}
	for range maxDeciding {
		leave(r.gate.deciding)
	}
	if got := r.ask(t, c, "/inject", podWith(inletPod)); !got.Allowed {
		t.Errorf("got %+v", got)
	}
}

// A review whose caller hangs up while it waits is no sign that there are too many.
func TestCallerHangsUp(t *testing.T) {
	r := start(t)
	c := r.client(t)
	for range maxDeciding {
		r.gate.deciding <- struct{}{}
	}
	counted := func(result string) float64 { return r.counted(t, "culvert_webhook_reviews_total", result) }
	for n := 1.0; counted(resultGone) == 0; n++ { // until it hung up with time left, however slow the machine is
		ctx, hangUp := context.WithCancel(t.Context())
		trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { hangUp() }}
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodPost, "https://"+r.Addr().String()+"/inject?timeout=10s", strings.NewReader(reviewOf("{}")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if resp, err := c.Do(req); err == nil {
			resp.Body.Close()
			t.Fatalf("who has hung up is answered with %d", resp.StatusCode)
		}
		for counted(resultGone)+counted(resultOverloaded) < n {
			if counted(resultInvalid) > 0 {
				t.Fatal("it is counted as no review")
			}
			time.Sleep(time.Millisecond)
		}
	}
	for range maxDeciding {
		leave(r.gate.deciding)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.log.String(), "a review was given up") {
		t.Errorf("the log says nothing of it: %s", r.log)
	}
}

// A large review that waits for a place for longer than a body may take is read when
// there is one: its time begins then.
func TestLargeReviewWaits(t *testing.T) {
	r := startWith(t, func(s *Server) { s.bodyTimeout = time.Second })
	for range cap(r.gate.reading) {
		r.gate.reading <- struct{}{}
	}
	time.AfterFunc(2500*time.Millisecond, func() {
		for range cap(r.gate.reading) {
			leave(r.gate.reading)
		}
	})
	status, text := r.post(t, r.client(t), "/inject", "application/json", reviewOf("{}")+strings.Repeat(" ", 300<<10))
	if status != http.StatusOK {
		t.Errorf("got %d %s, want %d", status, text, http.StatusOK)
	}
}

// Whatever names and annotations a review has, what is logged and answered of them is
// short, and whole runes.
func TestLongTexts(t *testing.T) {
	r := start(t)
	c := r.client(t)
	long := strings.Repeat("ä", 300<<10)
	for _, review := range []string{
		`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "namespace": "` + long + `", "name": "` + long + `", "operation": "` + long + `", "object": ` + podWith(inletPod) + `}}`,
		`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "name": "` + long[:len(long)/2] + `", "object": ` + podWith(`"culvert.dev/`+long[:200<<10]+`": "x"`) + `}}`,
		`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "` + long + `", "object": ` + podWith(inletPod) + `}}`,
	} {
		if _, text := r.post(t, c, "/inject", "application/json", review); len(text) > 16<<10 || !utf8.Valid(text) {
			t.Errorf("an answer of %d bytes: %.2000s", len(text), text)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(r.log.String()) {
		if len(line) > 4<<10 || !utf8.ValidString(line) {
			t.Errorf("a line of %d bytes: %.2000s", len(line), line)
		}
	}
}

// What is cut is a beginning of the text in whole runes, as long as may be.
func TestCut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text, most := rapid.String().Draw(rt, "text"), rapid.IntRange(8, 300).Draw(rt, "most")
		got := cut(text, most)
		if len(text) <= most {
			if got != text {
				rt.Fatalf("%q: got %q", text, got)
			}
			return
		}
		kept, marked := strings.CutSuffix(got, "…")
		if !marked || !strings.HasPrefix(text, kept) || !utf8.ValidString(kept) || len(got) > most || len(got) <= most-utf8.UTFMax {
			rt.Fatalf("%q: got %q, want at most %d bytes", text, got, most)
		}
	})
	if got := cut(strings.Repeat("\x80", 1000), 100); len(got) > 100 {
		t.Errorf("what is no UTF-8: %d bytes", len(got))
	}
}
