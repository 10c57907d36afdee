package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
)

// A crossing is some senders on one node that send to one worker on another one, straight
// or by way of a third, whatever happens meanwhile.
type crossing struct {
	middle  bool
	late    time.Duration // the lines'
	rate    int
	room    int // of the worker's node, for large messages
	mailbox int
	seed    uint64 // of how long Allow and the worker take
	allow   time.Duration
	work    time.Duration
	refuses int // Allow refuses one of so many; 0: none
	cut     time.Duration
	senders [][]sending
}

// A sending is one message.
type sending struct {
	size    int
	within  time.Duration // 0: as long as it takes
	between time.Duration // before it
}

func drawCrossing(t *rapid.T) *crossing {
	durations := func(name string, of ...time.Duration) time.Duration { return rapid.SampledFrom(of).Draw(t, name) }
	x := &crossing{
		middle:  rapid.Bool().Draw(t, "middle"),
		late:    durations("late", 0, time.Microsecond, time.Millisecond, 30*time.Millisecond),
		rate:    rapid.SampledFrom([]int{0, 0, 40 << 10, 1 << 20}).Draw(t, "rate"),
		room:    rapid.IntRange(320<<10, 1<<20).Draw(t, "room"),
		mailbox: rapid.IntRange(1, 3).Draw(t, "mailbox"),
		seed:    rapid.Uint64().Draw(t, "seed"),
		allow:   durations("allow", 0, 2*time.Millisecond, 100*time.Millisecond),
		work:    durations("work", 0, time.Millisecond, 20*time.Millisecond, 5*time.Second),
		refuses: rapid.SampledFrom([]int{0, 0, 2, 5}).Draw(t, "refuses"),
	}
	if rapid.IntRange(0, 3).Draw(t, "cuts") == 0 {
		x.cut = durations("cut", time.Millisecond, 20*time.Millisecond, time.Second, 4*time.Second)
	}
	one := rapid.Custom(func(t *rapid.T) sending {
		return sending{
			size: rapid.OneOf(
				rapid.IntRange(8, 100),
				rapid.IntRange(startCredit-2*messageHead, startCredit+2*messageHead),
				rapid.IntRange(100, 20<<10),
				rapid.IntRange(8<<10, 300<<10),
			).Draw(t, "size"),
			within:  durations("within", 0, 0, 0, time.Millisecond, 50*time.Millisecond, time.Second),
			between: durations("between", 0, 0, time.Millisecond, 200*time.Millisecond),
		}
	})
	x.senders = rapid.SliceOfN(rapid.SliceOfN(one, 1, 12), 1, 3).Draw(t, "senders")
	return x
}

// TestCreditIsKept: whatever is sent, dropped, refused and given way to, over whatever
// lines: all sends end; what was sent arrives once and in order, or its sender hears; and
// when it is quiet, both sides of each flow have the same credit, and nothing of the
// budget is taken.
func TestCreditIsKept(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		x := drawCrossing(r)
		var faults []string
		synctest.Test(t, func(t *testing.T) { faults = x.run(t) })
		if len(faults) > 0 {
			r.Fatalf("%q", faults)
		}
	})
}

// A passage is what becomes of one crossing.
type passage struct {
	*crossing
	nodes []*Node // the senders', the middle if there is one, the worker's
	lines *lines

	mu     sync.Mutex
	random *rand.Rand
	faults []string
	next   []int // of each sender, the least number that may come
	got    []int
	losses []int
	sent   []int
	came   []map[int]bool // of each sender, numbers
	failed []map[int]error
}

func (p *passage) fault(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// pause takes a while, up to most.
func (p *passage) pause(most time.Duration) {
	if most == 0 {
		return
	}
	p.mu.Lock()
	d := time.Duration(p.random.Int64N(int64(most)))
	p.mu.Unlock()
	time.Sleep(d)
}

func (x *crossing) run(t *testing.T) []string {
	count := len(x.senders)
	p := &passage{
		crossing: x, lines: &lines{late: x.late, rate: x.rate, hold: 8}, random: rand.New(rand.NewPCG(x.seed, 0)),
		next: make([]int, count), got: make([]int, count), losses: make([]int, count), sent: make([]int, count),
	}
	for range count {
		p.came, p.failed = append(p.came, map[int]bool{}), append(p.failed, map[int]error{})
	}
	defer p.lines.close()
	cfg := Config{Patience: 5 * time.Minute}
	p.nodes = append(p.nodes, p.lines.node(t, "127.0.0.1:1", cfg))
	to := Route{"tcp://127.0.0.1:3", "sink"}
	if x.middle {
		m := p.lines.node(t, "127.0.0.1:2", cfg)
		p.nodes = append(p.nodes, m)
		if err := m.StartHop("on", Hop{Allow: Anyone, To: []Address{to[0]}}); err != nil {
			t.Fatal(err)
		}
		to = append(Route{"tcp://127.0.0.1:2", "on"}, to...)
	}
	cfg.Patience, cfg.Buffer = 2*time.Second, 1
	last := p.lines.node(t, "127.0.0.1:3", cfg)
	p.nodes = append(p.nodes, last)
	narrow(last, x.room)
	start(t, last, "sink", WorkerFunc(p.take), Options{Mailbox: x.mailbox, MailboxBytes: 64 << 10, Allow: p.allows})
	var all sync.WaitGroup
	for s, messages := range x.senders {
		start(t, p.nodes[0], from(s), &bereaved{p, s}, Options{})
		all.Go(func() { p.send(s, to, messages) })
	}
	if x.cut > 0 {
		time.Sleep(x.cut)
		p.lines.cut("127.0.0.1:3") // the ways back to the senders stay
	}
	all.Wait()
	time.Sleep(time.Hour) // all that waits is delivered
	synctest.Wait()
	p.look()
	return p.faults
}

func from(sender int) Address { return Address(fmt.Sprint("from", sender)) }

func (p *passage) send(s int, to Route, messages []sending) {
	by := p.nodes[0].lookup(from(s)).(*worker)
	for i, m := range messages {
		time.Sleep(m.between)
		ctx, cancel := context.WithCancel(context.Background())
		if m.within > 0 {
			ctx, cancel = context.WithTimeout(context.Background(), m.within)
		}
		patient, done := p.nodes[0].patient(ctx)
		body := make([]byte, m.size)
		binary.BigEndian.PutUint32(body, uint32(s))
		binary.BigEndian.PutUint32(body[4:], uint32(i))
		err := p.nodes[0].send(patient, &Message{Onward: to, Return: Route{from(s)}, Body: body, hops: maxHops}, by)
		done()
		cancel()
		var de *DeliveryError
		if errors.As(err, &de) && de.Code == code.Timeout && m.within == 0 {
			p.fault("message %d of sender %d stalls", i, s)
		}
		p.mu.Lock()
		if p.sent[s]++; err != nil {
			p.failed[s][i] = err
		}
		p.mu.Unlock()
	}
}

// allows is the worker's Allow.
func (p *passage) allows(Origin) error {
	p.pause(p.crossing.allow)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuses > 0 && p.random.IntN(p.refuses) == 0 {
		return errors.New("not now")
	}
	return nil
}

// take is the worker.
func (p *passage) take(_ context.Context, _ *Self, m *Message) error {
	s, i := int(binary.BigEndian.Uint32(m.Body)), int(binary.BigEndian.Uint32(m.Body[4:]))
	if i < p.next[s] || len(m.Body) != p.senders[s][i].size {
		p.fault("message %d of sender %d has come, of %d bytes, when %d was next", i, s, len(m.Body), p.next[s])
	}
	p.next[s] = i + 1
	p.mu.Lock()
	p.got[s]++
	p.came[s][i] = true
	p.mu.Unlock()
	p.pause(p.work)
	return nil
}

// A bereaved worker hears of what one sender has lost.
type bereaved struct {
	*passage
	sender int
}

func (w *bereaved) Handle(context.Context, *Self, *Message) error { return nil }

func (w *bereaved) HandleLoss(context.Context, *Self, *DeliveryError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.losses[w.sender]++
}

// look holds what has become of all of them against each other.
func (p *passage) look() {
	for s := range p.senders {
		if p.sent[s] != len(p.senders[s]) {
			p.fault("%d of %d sends of sender %d have ended", p.sent[s], len(p.senders[s]), s)
		}
		for i, err := range p.failed[s] {
			if p.came[s][i] {
				p.fault("message %d of sender %d has come, whose send says %v", i, s, err)
			}
		}
		told := p.got[s] + p.losses[s] + len(p.failed[s])
		if told < p.sent[s] || told > p.sent[s] && p.cut == 0 {
			p.fault("of %d messages of sender %d %d have come, %d could not be sent, %d are said to be lost", p.sent[s], s, p.got[s], len(p.failed[s]), p.losses[s])
		}
	}
	for _, n := range p.nodes {
		for _, l := range n.dialled() {
			for _, o := range p.nodes {
				o.mu.Lock()
				other := o.series[l.says.series]
				o.mu.Unlock()
				if other != nil {
					p.faults = slices.Concat(p.faults, l.unlike(other), other.unlike(l))
				}
			}
		}
		n.budget.mu.Lock()
		left, grown, waiting := n.budget.left, n.budget.grown, n.budget.waiting
		n.budget.mu.Unlock()
		if n == p.nodes[len(p.nodes)-1] {
			left += MaxBody - p.room
		}
		if left+grown != n.budget.all || waiting > 0 {
			p.fault("%d bytes of %d are left, windows have %d, and %d wait", left, n.budget.all, grown, waiting)
		}
	}
}

// unlike returns where l's outflows have other credit than other has for them.
func (l *link) unlike(other *link) (faults []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.flows {
		in := other.in[f.number]
		if in == nil {
			faults = append(faults, fmt.Sprintf("flow %d is not there", f.number))
			continue
		}
		in.mu.Lock()
		under := 0
		for _, u := range f.unsure {
			under += u.charged
		}
		switch {
		case f.users > 0 || f.busy || in.under != nil || in.draining || len(in.queue) > 0:
			faults = append(faults, fmt.Sprintf("flow %d is not quiet", f.number))
		case f.credit != in.left || f.window != in.window-in.more || in.left+in.owed+in.more != in.window || len(f.back) > 0 && under-f.settled != in.owed:
			faults = append(faults, fmt.Sprintf("flow %d: the sender has %d of %d bytes, %d are not known to be delivered; the receiver has %d of %d, owes %d, and has %d more",
				f.number, f.credit, f.window, under-f.settled, in.left, in.window, in.owed, in.more))
		}
		in.mu.Unlock()
	}
	return faults
}
