package credential

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

func FuzzVerify(f *testing.F) {
	a, b := fixedAuthority(f, 1), fixedAuthority(f, 2)
	good := map[string]bool{}
	for _, by := range []*identity.Identity{a, b} {
		for _, attributes := range []Attributes{nil, {"role": "client"}, {"a": "", "b": "ü"}} {
			_, bundle, err := issue(by, serial(1), Template{Subject: subject, NotBefore: epoch.Add(time.Minute), Lifetime: MaxLifetime, Attributes: attributes})
			if err != nil {
				f.Fatal(err)
			}
			good[string(bundle)] = true
			f.Add(bundle)
			f.Add(bundle[:len(bundle)/2])
		}
	}
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, in []byte) {
		// Only the holder of the key can make what verifies.
		_, err := newVerifier(t, a).Verify(subject, in, now)
		if err == nil && !good[string(in)] {
			t.Errorf("a forgery verifies: %x", in)
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || !e.Code.Known() || e.Code == code.OK) {
			t.Errorf("error %v has no code", err)
		}
		_, _, _ = Inspect(in)
	})
}

// FuzzClaims reads what could be signed: what it takes is within the bounds,
// and has one encoding.
func FuzzClaims(f *testing.F) {
	_, b := mustIssue(f, fixedAuthority(f, 1), now, Attributes{"role": "client", "a.b": ""})
	var outer bundle
	decode(f, b, &outer)
	f.Add(outer.Credential)
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := parseClaims(in)
		if err != nil {
			return
		}
		again := encode(t, claims{
			c.Serial[:], c.Issuer[:], c.signer[:], c.Subject[:], c.Attributes, uint64(c.NotBefore.Unix()), uint64(c.NotAfter.Unix()),
		})
		if !bytes.Equal(again, in) {
			t.Errorf("accepted %x but prints %x", in, again)
		}
		if err := c.Attributes.Check(); err != nil || c.NotAfter.Sub(c.NotBefore) > MaxLifetime || !c.NotAfter.After(c.NotBefore) {
			t.Errorf("accepted what breaks a bound: %+v, %v", c, err)
		}
	})
}

// FuzzHead is FuzzClaims for the head of a list.
func FuzzHead(f *testing.F) {
	a := fixedAuthority(f, 1)
	for _, next := range []time.Time{{}, now.Add(time.Hour)} {
		l, err := SignList(a, 1<<40, now, next, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(l.signed.Head)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := parseHead(in)
		if err != nil {
			return
		}
		again := headClaims{Issuer: h.issuer[:], Signer: h.signer[:], Number: h.number, Issued: uint64(h.issued.Unix()), State: h.state[:]}
		if !h.next.IsZero() {
			again.Next = uint64(h.next.Unix())
		}
		if b := encode(t, again); !bytes.Equal(b, in) {
			t.Errorf("accepted %x but prints %x", in, b)
		}
		if h.number == 0 || h.issuer.IsZero() || (!h.next.IsZero() && !h.next.After(h.issued)) {
			t.Errorf("accepted a head that cannot be: %+v", h)
		}
	})
}

func fuzzLists(f *testing.F) (a *identity.Identity, old, next *List) {
	a = fixedAuthority(f, 2)
	old = mustList(f, a, 1, testSet(f, 3, now.Add(-DropAfter)))
	next = mustList(f, a, 2, mustAdd(f, old.Set().Prune(now), []identity.Identifier{subject}, RevokedSerial{serial(1), now}))
	return a, old, next
}

func FuzzApplyList(f *testing.F) {
	a, old, next := fuzzLists(f)
	good := map[string]bool{}
	for _, l := range []*List{old, next, mustList(f, a, 3, nil)} {
		b := mustFull(f, l)
		good[string(b)] = true
		f.Add(b)
		f.Add(b[:len(b)-30])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := newVerifier(t, a).ApplyList(in, now)
		if err == nil && (!good[string(in)] || !bytes.Equal(mustFull(t, l), in)) {
			t.Errorf("a forgery is applied: %x", in)
		}
		if l, err = newVerifier(t, a).Restore(in); err == nil && (!good[string(in)] || !bytes.Equal(mustFull(t, l), in)) {
			t.Errorf("a forgery is restored: %x", in)
		}
	})
}

func FuzzApplyDelta(f *testing.F) {
	a, old, next := fuzzLists(f)
	good := mustDelta(f, next, old)
	f.Add(good)
	f.Add(good[:len(good)-30])
	f.Add(mustDelta(f, mustList(f, a, 3, next.Set()), old))
	f.Fuzz(func(t *testing.T, in []byte) {
		v := newVerifier(t, a)
		mustApply(t, v, old)
		l, err := v.ApplyDelta(in, now)
		if err == nil && (l.Number() == 2) != bytes.Equal(in, good) {
			t.Errorf("a forgery is applied: %x", in)
		}
	})
}

// FuzzDelta applies changes that nobody has signed: whatever they are, what
// comes out is sorted, and what is in it comes from the base or the delta.
func FuzzDelta(f *testing.F) {
	id, s := identifier(1), serial(1)
	f.Add(id[:], append(s[:], make([]byte, 8)...), s[:])
	f.Add([]byte{}, []byte{}, []byte{1})
	base := testSet(f, 3, now)
	f.Fuzz(func(t *testing.T, identifiers, serials, dropped []byte) {
		set, err := (&deltaList{Identifiers: identifiers, Serials: serials, Dropped: dropped}).apply(base)
		if err != nil {
			return
		}
		if _, err := parseSet(set.identifiers, set.serials); err != nil {
			t.Errorf("the result is no set: %v", err)
		}
		if want := base.Len() + len(identifiers)/32 + len(serials)/24 - len(dropped)/16; set.Len() != want {
			t.Errorf("%d entries, want %d", set.Len(), want)
		}
	})
}

func FuzzParseTicket(f *testing.F) {
	_, text := newTicket(f)
	f.Add(text)
	f.Add(text[:100])
	f.Add(ticketPrefix + ticketVersion)
	f.Add(frameTicket(f, []byte{0xa0}))
	f.Fuzz(func(t *testing.T, in string) {
		ticket, err := ParseTicket(in)
		if err != nil {
			return
		}
		if out, err := ticket.Encode(); err != nil || out != strings.Trim(in, " \t\r\n") {
			t.Errorf("accepted %q but prints %q (%v)", in, out, err)
		}
	})
}

// FuzzTicketBody gives the checksum to any body, which the fuzzer cannot.
func FuzzTicketBody(f *testing.F) {
	id := TicketID{1}
	f.Add(encode(f, wireTicket{subject[:], testRoutes, id[:], make([]byte, MinTicketSecret)}))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 20<<10 {
			return
		}
		text := frameTicket(t, body)
		ticket, err := ParseTicket(text)
		if err != nil {
			return
		}
		if out, err := ticket.Encode(); err != nil || out != text {
			t.Errorf("accepted %q but prints %q (%v)", text, out, err)
		}
	})
}

func FuzzReadRequest(f *testing.F) {
	for _, m := range requests {
		f.Add(encodeRequest(f, 1, m))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		id, m, err := ReadRequest(bytes.NewReader(in))
		if err != nil {
			return
		}
		out, err := AppendRequest(nil, id, m)
		if err != nil {
			t.Fatalf("%T is read and cannot be written: %v", m, err)
		}
		againID, again, err := ReadRequest(bytes.NewReader(out))
		if err != nil || againID != id || text(again) != text(m) || len(out) > len(in) {
			t.Errorf("%x is read as %T, which is written as %x", in, m, out)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	for _, m := range answers {
		f.Add(encodeAnswer(f, 1, m))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		id, m, err := ReadAnswer(bytes.NewReader(in))
		if err != nil {
			return
		}
		out, err := AppendAnswer(nil, id, m)
		if err != nil {
			t.Fatalf("%T is read and cannot be written: %v", m, err)
		}
		againID, again, err := ReadAnswer(bytes.NewReader(out))
		if err != nil || againID != id || text(again) != text(m) || len(out) > len(in) {
			t.Errorf("%x is read as %T, which is written as %x", in, m, out)
		}
	})
}
