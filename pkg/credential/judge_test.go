package credential

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
)

// Whoever proves once and judges often hears what whoever verifies each time
// hears, at any time and whatever is revoked; and between a judgement and its
// Until time alone changes nothing.
func TestJudgeIsVerifyAll(t *testing.T) {
	authorities := []*identity.Identity{newAuthority(t), newAuthority(t)}
	stranger := newAuthority(t)
	rapid.Check(t, func(rt *rapid.T) {
		v := newVerifier(t, authorities...)
		bundles := [][]byte{[]byte("no bundle")}
		var serials []RevokedSerial
		for range rapid.IntRange(0, 4).Draw(rt, "bundles") {
			a := append(authorities[:2:2], stranger)[rapid.IntRange(0, 2).Draw(rt, "authority")]
			from := now.Add(time.Duration(rapid.IntRange(0, 7200).Draw(rt, "from")) * time.Second)
			value := rapid.SampledFrom([]string{"a", "a", "b"}).Draw(rt, "value")
			c, b := mustIssue(t, a, from, Attributes{"role": value})
			bundles = append(bundles, b)
			serials = append(serials, RevokedSerial{c.Serial, c.NotAfter})
		}
		p := v.Prove(subject, bundles)
		if rapid.Bool().Draw(rt, "list") {
			n := rapid.IntRange(0, len(serials)).Draw(rt, "revoked")
			next := now.Add(time.Duration(rapid.IntRange(1, 7200).Draw(rt, "next")) * time.Second)
			l, err := SignList(authorities[0], 1, now, next, mustAdd(t, nil, nil, serials[:n]...))
			if err != nil {
				rt.Fatal(err)
			}
			mustApply(t, v, l)
		}
		at := now
		for range 20 {
			got, gotErr := v.Judge(p, at)
			want, wantErr := v.VerifyAll(subject, bundles, at)
			if !reflect.DeepEqual(texts(got, gotErr), texts(want, wantErr)) {
				rt.Fatalf("at %s: Judge = %v, VerifyAll = %v", at, texts(got, gotErr), texts(want, wantErr))
			}
			if got.Until.IsZero() {
				at = at.Add(24 * time.Hour)
				last, lastErr := v.Judge(p, at)
				if outcome(last, lastErr) != outcome(got, gotErr) {
					rt.Fatalf("the answer changed after all: %s, then %s", outcome(got, gotErr), outcome(last, lastErr))
				}
				return
			}
			if !got.Until.After(at) {
				rt.Fatalf("Until is %s at %s", got.Until, at)
			}
			before, beforeErr := v.Judge(p, got.Until.Add(-time.Nanosecond))
			if outcome(before, beforeErr) != outcome(got, gotErr) {
				rt.Fatalf("the answer changed before Until: %s, then %s", outcome(got, gotErr), outcome(before, beforeErr))
			}
			at = got.Until
		}
		rt.Fatal("there is always another change")
	})
}

// texts is all of an answer, in a form that compares.
func texts(a Verified, err error) []string {
	out := []string{outcome(a, err), a.Until.String(), a.NotAfter.String()}
	for _, r := range a.Refused {
		out = append(out, r.Code.String())
	}
	return out
}

// outcome is what of an answer matters to a policy.
func outcome(a Verified, err error) string {
	if err != nil {
		return err.Error()
	}
	out := ""
	for _, c := range a.Credentials {
		out += c.Serial.String() + " "
	}
	return out
}

// A revoked identifier counts for nothing from the list on, proven or not.
func TestJudgeRevoked(t *testing.T) {
	a := newAuthority(t)
	v := newVerifier(t, a)
	_, b := mustIssue(t, a, now, Attributes{"role": "api"})
	p, none := v.Prove(subject, [][]byte{b}), v.Prove(subject, nil)
	for _, q := range []*Proven{p, none} {
		if _, err := v.Judge(q, now); err != nil {
			t.Errorf("before: %v", err)
		}
	}
	mustApply(t, v, mustList(t, a, 1, mustAdd(t, nil, []identity.Identifier{subject})))
	for _, q := range []*Proven{p, none} {
		_, err := v.Judge(q, now)
		wantCode(t, err, code.IdentityRevoked)
	}
	_, err := v.Judge(v.Prove(identifier(9), make([][]byte, MaxBundles+1)), now)
	wantCode(t, err, code.CredentialMalformed, "17 of them")
}
