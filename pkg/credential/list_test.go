package credential

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// testSet returns a set of n identifiers and n serials that end at end.
func testSet(t testing.TB, n int, end time.Time) *Set {
	t.Helper()
	ids, serials := make([]identity.Identifier, n), make([]RevokedSerial, n)
	for i := range n {
		ids[i], serials[i] = identifier(uint32(1000+i)), RevokedSerial{serial(uint32(1000 + i)), end}
	}
	return mustAdd(t, nil, ids, serials...)
}

// Head, state and signature as the package comment states them, computed
// without the package's own functions.
func TestListIsWhatTheDocumentationSays(t *testing.T) {
	a := newAuthority(t)
	l := mustList(t, a, 5, testSet(t, 2, now))
	var full fullList
	decode(t, mustFull(t, l), &full)
	if !ed25519.Verify(a.History().Key(), append([]byte("culvert revocations v1\x00"), full.Head...), full.Signature) {
		t.Error("the signature is not over the label and the head")
	}
	id1, id2, s1, s2 := identifier(1000), identifier(1001), serial(1000), serial(1001)
	end := binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))
	ids := append(bytes.Clone(id1[:]), id2[:]...)
	serials := bytes.Join([][]byte{s1[:], end, s2[:], end}, nil)
	if !bytes.Equal(full.Identifiers, ids) || !bytes.Equal(full.Serials, serials) {
		t.Errorf("entries are %x and %x", full.Identifiers, full.Serials)
	}
	state := sha256.Sum256(bytes.Join([][]byte{[]byte("culvert revocation state v1\x00\x00\x00\x00\x02"), ids, serials}, nil))
	if !bytes.Contains(full.Head, state[:]) {
		t.Error("the head does not hold the hash of the state")
	}
}

// The bytes, to the letter: a change of them is a change of the label's version.
func TestKnownLists(t *testing.T) {
	a := fixedAuthority(t, 2)
	one, two := mustList(t, a, 1, testSet(t, 2, now)), mustList(t, a, 2, testSet(t, 3, now))
	for _, tt := range []struct{ name, got, want string }{
		{"head", hex.EncodeToString(one.signed.Head), "a50158207da60e4998b8b0c6e7b67ebed37804010d617effb4af560f5024b3984701727a" +
			"025820c856d2afd421e095a07e3ff7760d0c11ade1a319777fabb2c5112b740d0a549e0301041a695743b5" +
			"065820df15e88093616ba26d8fb2e652bc7b13cd415b7dd105cebbe18247088bc994ca"},
		{"full", hash(mustFull(t, one)), "e6f5c26abc52e1a26db0d81f57bcb5bf9f8aac87d4c7a02bf7580ba3abb76047"},
		{"delta", hash(mustDelta(t, two, one)), "880e623f1db4a79847038b6c3be7db5e226508872dfb1813326143d5b8863cc2"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %s, want %s", tt.name, tt.got, tt.want)
		}
	}
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func TestApplyList(t *testing.T) {
	a := newAuthority(t)
	set := testSet(t, 3, now)
	next := now.Add(time.Hour)
	signed, err := SignList(a, 5, now, next, set)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, a)
	l, err := v.ApplyList(mustFull(t, signed), now)
	if err != nil {
		t.Fatal(err)
	}
	if l != v.List(a.Identifier()) || l.Number() != 5 || !l.Issued().Equal(now) || !l.Next().Equal(next) || l.Authority() != a.Identifier() ||
		l.Set().Hash() != set.Hash() || l.Set().Len() != 6 {
		t.Errorf("got %+v", l)
	}
	if !bytes.Equal(mustFull(t, l), mustFull(t, signed)) {
		t.Error("what was applied is encoded otherwise than it came")
	}
	for i := range uint32(3) {
		if !l.Set().HasIdentifier(identifier(1000+i)) || !l.Set().HasSerial(serial(1000+i)) {
			t.Errorf("entry %d is not in it", i)
		}
	}
	for _, n := range []uint32{0, 999, 1003, math.MaxUint32} {
		if l.Set().HasIdentifier(identifier(n)) || l.Set().HasSerial(serial(n)) {
			t.Errorf("entry %d is in it", n)
		}
	}
}

// Every bit of a full list and of a delta counts.
func TestApplyRefusesEveryFlippedBit(t *testing.T) {
	a := newAuthority(t)
	old := mustList(t, a, 1, testSet(t, 2, now.Add(-DropAfter)))
	l := mustList(t, a, 2, mustAdd(t, old.Set().Prune(now), []identity.Identifier{identifier(1), identifier(5000)}, RevokedSerial{serial(1), now}, RevokedSerial{serial(5000), now}))
	full, delta := mustFull(t, l), mustDelta(t, l, old)
	v := newVerifier(t, a)
	mustApply(t, v, old)
	for name, in := range map[string][]byte{"full": full, "delta": delta} {
		apply := v.ApplyList
		if name == "delta" {
			apply = v.ApplyDelta
		}
		for i := range len(in) * 8 {
			bad := bytes.Clone(in)
			bad[i/8] ^= 1 << (i % 8)
			if _, err := apply(bad, now); err == nil {
				t.Fatalf("%s: bit %d flipped: accepted", name, i)
			}
		}
		for i := range in {
			if _, err := apply(in[:i], now); err == nil {
				t.Fatalf("%s: cut to %d bytes: accepted", name, i)
			}
		}
		_, err := apply(append(bytes.Clone(in), 0), now)
		wantCode(t, err, code.RevocationsMalformed)
	}
	_, err := v.ApplyList(delta, now)
	wantCode(t, err, code.RevocationsMalformed)
	_, err = v.ApplyDelta(full, now)
	wantCode(t, err, code.RevocationsMalformed)
	if v.List(a.Identifier()).Number() != 1 {
		t.Error("the list held has changed")
	}
	if got, err := v.ApplyDelta(delta, now); err != nil || got.Set().Hash() != l.Set().Hash() {
		t.Errorf("the delta as it is: %v", err)
	}
}

func TestListsOnlyRise(t *testing.T) {
	a := newAuthority(t)
	v := newVerifier(t, a)
	mustApply(t, v, mustList(t, a, 5, nil))
	for _, n := range []uint64{1, 4, 5} {
		_, err := v.ApplyList(mustFull(t, mustList(t, a, n, nil)), now)
		wantCode(t, err, code.RevocationsOld, "not newer than the one held, 5")
	}
	_, err := v.ApplyList(mustFull(t, mustList(t, a, 5, testSet(t, 1, now))), now)
	wantCode(t, err, code.RevocationsOld, "differs from the one held", "two hands")
	mustApply(t, v, mustList(t, a, math.MaxUint64, nil))
	_, err = v.ApplyList(mustFull(t, mustList(t, a, 6, nil)), now)
	wantCode(t, err, code.RevocationsOld)
}

func TestListsAreSignedByTheLastChange(t *testing.T) {
	old := newAuthority(t)
	a := rotate(t, old, epoch.Add(10*time.Minute))
	v := newVerifier(t, a)
	mustApply(t, v, mustList(t, old, 1, testSet(t, 1, now)))
	if err := v.Learn(a.History()); err != nil {
		t.Fatal(err)
	}
	// However far back a replaced key dates it.
	backdated, err := SignList(old, 2, epoch, time.Time{}, testSet(t, 1, now))
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.ApplyList(mustFull(t, backdated), now)
	wantCode(t, err, code.SignerReplaced, "ask for the list of now")
	if v.List(a.Identifier()).Number() != 1 || v.Revoked(identifier(1000)) == nil {
		t.Error("what was revoked before the replacement does not stay so")
	}
	mustApply(t, v, mustList(t, a, 2, testSet(t, 1, now)))
}

func TestApplyRefuses(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	v := newVerifier(t, a)
	b := mustFull(t, mustList(t, a, 1, testSet(t, 2, now)))
	edit := func(f func(l *fullList)) []byte {
		var l fullList
		decode(t, b, &l)
		f(&l)
		return encode(t, l)
	}
	resign := func(label string, f func(c *headClaims)) []byte {
		return edit(func(l *fullList) {
			var c headClaims
			decode(t, l.Head, &c)
			f(&c)
			l.Head = encode(t, c)
			var err error
			if l.Signature, err = a.Sign(label, l.Head); err != nil {
				t.Fatal(err)
			}
		})
	}
	swap := func(b []byte, size int) []byte {
		return append(bytes.Clone(b[size:2*size]), b[:size]...)
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want code.Code
		text string
	}{
		{"empty", nil, code.RevocationsMalformed, "decoding CBOR"},
		{"too long", make([]byte, MaxListLen+1), code.RevocationsMalformed, "more than 8388608"},
		{"not trusted", mustFull(t, mustList(t, stranger, 1, nil)), code.UntrustedAuthority, "not trusted"},
		{"as a credential", resign(credentialLabel, func(*headClaims) {}), code.RevocationsForged, "signature is wrong"},
		{"number 0", resign(revocationsLabel, func(c *headClaims) { c.Number = 0 }), code.RevocationsMalformed, "count from 1"},
		{"issued after 9999", resign(revocationsLabel, func(c *headClaims) { c.Issued = math.MaxUint64 }), code.RevocationsMalformed, "year 9999"},
		{"next before issued", resign(revocationsLabel, func(c *headClaims) { c.Next = c.Issued }), code.RevocationsMalformed, "promised before"},
		{"signer short", resign(revocationsLabel, func(c *headClaims) { c.Signer = c.Signer[1:] }), code.RevocationsMalformed, "signer has 31 bytes"},
		{"signer unknown", resign(revocationsLabel, func(c *headClaims) { c.Signer[0] ^= 1 }), code.RevocationsForged, "no change"},
		{"issued in the future", resign(revocationsLabel, func(c *headClaims) { c.Issued += 301 }), code.NotYetValid, "check the clocks"},
		{"issued before the key", resign(revocationsLabel, func(c *headClaims) { c.Issued -= 3600 + 301 }), code.AuthorityExpired, "did not hold"},
		{"state of another", resign(revocationsLabel, func(c *headClaims) { c.State[0] ^= 1 }), code.RevocationsForged, "not those that are signed"},
		{"an entry less", edit(func(l *fullList) { l.Identifiers = l.Identifiers[:32] }), code.RevocationsForged, "not those that are signed"},
		{"no entries", edit(func(l *fullList) { l.Identifiers, l.Serials = nil, nil }), code.RevocationsForged, "not those that are signed"},
		{"half an identifier", edit(func(l *fullList) { l.Identifiers = l.Identifiers[:48] }), code.RevocationsMalformed, "no multiple of 32"},
		{"identifiers out of order", edit(func(l *fullList) { l.Identifiers = swap(l.Identifiers, 32) }), code.RevocationsMalformed, "entry 2 of 2 is not above"},
		{"an identifier twice", edit(func(l *fullList) { copy(l.Identifiers[32:], l.Identifiers[:32]) }), code.RevocationsMalformed, "entry 2 of 2 is not above"},
		{"serials out of order", edit(func(l *fullList) { l.Serials = swap(l.Serials, 24) }), code.RevocationsMalformed, "entry 2 of 2 is not above"},
		{"a serial's end", edit(func(l *fullList) { l.Serials[16] = 0xff }), code.RevocationsMalformed, "year 9999"},
		{"a stranger's history", edit(func(l *fullList) { l.History = stranger.History().Bytes() }), code.RevocationsForged, "history beside it"},
		{"no history", edit(func(l *fullList) { l.History = nil }), code.RevocationsMalformed, "reading history"},
		{"too many", edit(func(l *fullList) { l.Serials = manyRecords(MaxRevocations+1, 24) }), code.RevocationsMalformed, "more than 200000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := v.ApplyList(tt.in, now)
			wantCode(t, err, tt.want, tt.text)
		})
	}
	if v.List(a.Identifier()) != nil {
		t.Error("one of them is held")
	}
	if _, err := v.ApplyList(b, now); err != nil {
		t.Error(err)
	}
}

func TestSignListRefuses(t *testing.T) {
	a := newAuthority(t)
	for _, tt := range []struct {
		name         string
		number       uint64
		issued, next time.Time
		want         string
	}{
		{"number 0", 0, now, time.Time{}, "count from 1"},
		{"before the key", 1, epoch.Add(-time.Second), time.Time{}, "not valid yet"},
		{"after the key", 1, a.History().Expires(), time.Time{}, "expired"},
		{"next before issued", 1, now, now, "promised before"},
		{"next after 9999", 1, now, time.Unix(maxUnix+1, 0), "set this machine's clock"},
	} {
		_, err := SignList(a, tt.number, tt.issued, tt.next, nil)
		wantText(t, err, "signing revocation list", tt.want)
	}
}

// manyRecords returns n ascending records.
func manyRecords(n, size int) []byte {
	b := make([]byte, n*size)
	for i := range n {
		binary.BigEndian.PutUint32(b[i*size:], uint32(i))
	}
	return b
}

// What is revoked stays so, whatever the authority signs later.
func TestRevocationsStay(t *testing.T) {
	a := newAuthority(t)
	end := now.Add(time.Hour)
	old := mustList(t, a, 1, mustAdd(t, nil, []identity.Identifier{subject}, RevokedSerial{serial(1), end}))
	without := func(ids []identity.Identifier, serials ...RevokedSerial) *Set {
		return mustAdd(t, nil, ids, serials...)
	}
	for _, tt := range []struct {
		name   string
		set    *Set
		issued time.Time
		want   string
	}{
		{"identifier", without(nil, RevokedSerial{serial(1), end}), now, "revoked for ever"},
		{"serial", without([]identity.Identifier{subject}), now, "before its end"},
		{"serial, a moment too early", without([]identity.Identifier{subject}), end.Add(DropAfter - time.Second), "before its end"},
		{"serial's end", without([]identity.Identifier{subject}, RevokedSerial{serial(1), end.Add(-1 * time.Second)}), now, "another end"},
		{"serial, in time", without([]identity.Identifier{subject}), end.Add(DropAfter), ""},
	} {
		v := newVerifier(t, a)
		mustApply(t, v, old)
		l, err := SignList(a, 2, tt.issued, time.Time{}, tt.set)
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.ApplyList(mustFull(t, l), tt.issued)
		_, deltaErr := l.Delta(old)
		if tt.want == "" {
			if err != nil || deltaErr != nil {
				t.Errorf("%s: %v, %v", tt.name, err, deltaErr)
			}
			continue
		}
		wantCode(t, err, code.RevocationsLost, tt.want, "restore the authority's store")
		wantText(t, deltaErr, tt.want)
	}
}

// A delta leads to what the full list says, or is refused, whatever is added
// and dropped; several deltas lead where one does.
func TestDeltaEqualsFull(t *testing.T) {
	a := newAuthority(t)
	rapid.Check(t, func(rt *rapid.T) {
		var lists []*List
		var set *Set
		for n := range 4 {
			var ids []identity.Identifier
			for _, i := range rapid.SliceOfN(rapid.Uint32Range(0, 20), 0, 8).Draw(rt, "identifiers") {
				ids = append(ids, identifier(i))
			}
			var serials []RevokedSerial
			for _, i := range rapid.SliceOfN(rapid.Uint32Range(0, 20), 0, 8).Draw(rt, "serials") {
				// The end depends on the serial: some can be dropped at once.
				serials = append(serials, RevokedSerial{serial(i), now.Add(-DropAfter + time.Duration(i%3)*time.Hour)})
			}
			set = mustAdd(t, set, ids, serials...)
			if rapid.Bool().Draw(rt, "prune") {
				set = set.Prune(now)
			}
			lists = append(lists, mustList(t, a, uint64(n+1), set))
		}
		full, steps, jump := newVerifier(t, a), newVerifier(t, a), newVerifier(t, a)
		mustApply(t, full, lists[3])
		mustApply(t, steps, lists[0])
		mustApply(t, jump, lists[0])
		for i := 1; i < len(lists); i++ {
			if _, err := steps.ApplyDelta(mustDelta(t, lists[i], lists[i-1]), now); err != nil {
				rt.Fatal(err)
			}
		}
		if _, err := jump.ApplyDelta(mustDelta(t, lists[3], lists[0]), now); err != nil {
			rt.Fatal(err)
		}
		want := mustFull(t, full.List(a.Identifier()))
		for _, v := range []*Verifier{steps, jump} {
			if got := mustFull(t, v.List(a.Identifier())); !bytes.Equal(got, want) {
				rt.Fatalf("a delta leads to %x, the full list is %x", got, want)
			}
		}
	})
}

func TestApplyDeltaRefuses(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	base := mustAdd(t, nil, []identity.Identifier{identifier(1)}, RevokedSerial{serial(1), now.Add(-DropAfter)}, RevokedSerial{serial(2), now})
	one := mustList(t, a, 1, base)
	two := mustList(t, a, 2, mustAdd(t, base.Prune(now), []identity.Identifier{identifier(2)}, RevokedSerial{serial(3), now}))
	b := mustDelta(t, two, one)
	edit := func(f func(d *deltaList)) []byte {
		var d deltaList
		decode(t, b, &d)
		f(&d)
		return encode(t, d)
	}
	id1, s1, s2, s3 := identifier(1), serial(1), serial(2), serial(3)
	v := newVerifier(t, a)
	_, err := v.ApplyDelta(b, now)
	wantCode(t, err, code.RevocationsBase, "not the one held")
	mustApply(t, v, one)
	for _, tt := range []struct {
		name string
		in   []byte
		text string
	}{
		{"from another list", edit(func(d *deltaList) { d.From = 7 }), "delta to 7, which is not the one held"},
		{"nothing added", edit(func(d *deltaList) { d.Identifiers = nil }), "another state"},
		{"nothing dropped", edit(func(d *deltaList) { d.Dropped = nil }), "another state"},
		{"what is there is added", edit(func(d *deltaList) { d.Identifiers = append(id1[:], d.Identifiers...) }), "is in it already"},
		{"what is not there is dropped", edit(func(d *deltaList) { d.Dropped = append(d.Dropped, s3[:]...) }), "is not in it"},
		{"dropped twice", edit(func(d *deltaList) { d.Dropped = append(d.Dropped, s1[:]...) }), "is not above"},
		{"dropped and added again", edit(func(d *deltaList) {
			d.Dropped = append(d.Dropped, s2[:]...)
			d.Serials = append(base.sers().at(1), d.Serials...)
		}), "is in it already"},
		{"half a serial", edit(func(d *deltaList) { d.Dropped = d.Dropped[:8] }), "no multiple of 16"},
		{"half an identifier", edit(func(d *deltaList) { d.Identifiers = d.Identifiers[:31] }), "no multiple of 32"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := v.ApplyDelta(tt.in, now)
			wantCode(t, err, code.RevocationsBase, tt.text)
			if !errors.Is(err, ErrNeedFull) {
				t.Errorf("%v does not wrap ErrNeedFull", err)
			}
		})
	}
	// A receiver whose list is another under the same number asks for the full one.
	other := newVerifier(t, a)
	mustApply(t, other, mustList(t, a, 1, mustAdd(t, base, []identity.Identifier{identifier(9)})))
	_, err = other.ApplyDelta(b, now)
	wantCode(t, err, code.RevocationsBase, "another state")

	if _, err := v.ApplyDelta(b, now); err != nil {
		t.Fatal(err)
	}
	_, err = v.ApplyDelta(b, now)
	wantCode(t, err, code.RevocationsOld)
	for _, from := range []*List{two, mustList(t, a, 3, nil), mustList(t, stranger, 1, nil)} {
		_, err := two.Delta(from)
		wantText(t, err, "want one")
	}
}

func TestSetAddAndPrune(t *testing.T) {
	end := now.Add(time.Hour)
	ids := []identity.Identifier{identifier(3), identifier(1), identifier(3), identifier(2)}
	s := mustAdd(t, nil, ids, RevokedSerial{serial(2), end}, RevokedSerial{serial(1), now}, RevokedSerial{serial(2), end})
	if s.Len() != 5 {
		t.Errorf("%d entries, want 5", s.Len())
	}
	if again := mustAdd(t, s, ids, RevokedSerial{serial(2), end}); again.Hash() != s.Hash() {
		t.Error("adding what is there has changed the set")
	}
	for _, serials := range [][]RevokedSerial{{{serial(2), now}}, {{serial(9), now}, {serial(9), end}}, {{serial(9), time.Unix(-1, 0)}}} {
		if _, err := s.Add(nil, serials); err == nil {
			t.Errorf("%v: added", serials)
		}
	}
	for at, want := range map[time.Time]int{
		now.Add(DropAfter - 1): 5, now.Add(DropAfter): 4, end.Add(DropAfter - 1): 4, end.Add(DropAfter): 3, end.Add(1000 * time.Hour): 3,
	} {
		if got := s.Prune(at).Len(); got != want {
			t.Errorf("pruned at %s: %d entries, want %d", at, got, want)
		}
	}
	var none *Set
	if none.Len() != 0 || none.HasIdentifier(subject) || none.HasSerial(serial(1)) || none.Hash() != (&Set{}).Hash() || none.Prune(now).Len() != 0 {
		t.Error("nil is not the empty set")
	}
	// What moves from one kind to the other is another state.
	if mustAdd(t, nil, []identity.Identifier{identifier(1)}).Hash() == none.Hash() {
		t.Error("two sets with one hash")
	}
	if _, err := (&Set{identifiers: manyRecords(MaxRevocations, 32)}).Add([]identity.Identifier{subject}, nil); err == nil {
		t.Error("more than fit: added")
	}
}

// The longest list fits, whatever it consists of.
func TestLongestList(t *testing.T) {
	a := newAuthority(t)
	for n := 1; n < identity.MaxChanges; n++ {
		a = rotate(t, a, epoch.Add(time.Duration(n)*time.Second))
	}
	for name, set := range map[string]*Set{
		"identifiers": {identifiers: manyRecords(MaxRevocations, 32)},
		"serials":     {serials: manyRecords(MaxRevocations, 24)},
	} {
		b := mustFull(t, mustList(t, a, 1, set))
		l, err := newVerifier(t, a).ApplyList(b, now)
		if err != nil || l.Set().Len() != MaxRevocations {
			t.Errorf("%s: %v", name, err)
		}
		if len(b) > 16<<20 {
			t.Errorf("%s: %d bytes", name, len(b))
		}
	}
}

// What claims to be long and is not costs no more than what is there.
func TestDecodingAllocatesWhatIsThere(t *testing.T) {
	v := newVerifier(t, newAuthority(t))
	for _, in := range [][]byte{
		{0xa5, 0x01, 0x5a, 0x00, 0x7f, 0xff, 0xff},                         // 8 MiB of history
		{0xa5, 0x01, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, // 2^63 bytes
		{0xba, 0xff, 0xff, 0xff, 0xff},                                     // 2^32 pairs
		{0x9a, 0xff, 0xff, 0xff, 0xff},                                     // a list of 2^32
	} {
		for name, f := range map[string]func(){
			"list":       func() { _, _ = v.ApplyList(in, now) },
			"delta":      func() { _, _ = v.ApplyDelta(in, now) },
			"credential": func() { _, _ = v.Verify(subject, in, now) },
		} {
			if got := allocated(f); got > 256<<10 {
				t.Errorf("%s of %x: %d bytes allocated", name, in, got)
			}
		}
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// The time of a look-up grows with the logarithm of the entries: a search
// through all would take two thousand times as long in the larger set.
func TestLookUpIsFlat(t *testing.T) {
	var times [2]float64
	for i, n := range []int{100, MaxRevocations} {
		set := &Set{serials: manyRecords(n, 24)}
		probe := set.sers()
		best := math.Inf(1)
		for range 5 {
			start := time.Now()
			for range 2000 {
				if _, ok := probe.find(probe.keyAt(rand.IntN(n))); !ok {
					t.Fatal("not found")
				}
			}
			best = min(best, float64(time.Since(start)))
		}
		times[i] = best
	}
	if times[1] > 100*times[0] {
		t.Errorf("in %d entries a look-up takes %.0f times what it takes in 100", MaxRevocations, times[1]/times[0])
	}
}

func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{0, 100, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			a := newAuthority(b)
			v := newVerifier(b, a)
			mustApply(b, v, mustList(b, a, 1, &Set{identifiers: manyRecords(n, 32), serials: manyRecords(n, 24)}))
			_, bundle := mustIssue(b, a, now, Attributes{"role": "client"})
			c, err := v.Verify(subject, bundle, now)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := v.Check(c, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	a := newAuthority(b)
	v := newVerifier(b, a)
	_, bundle := mustIssue(b, a, now, Attributes{"role": "client"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(subject, bundle, now); err != nil {
			b.Fatal(err)
		}
	}
}
