package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestNewMakesDifferentIdentities(t *testing.T) {
	a, err := New(epoch)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(epoch)
	if err != nil {
		t.Fatal(err)
	}
	if a.Identifier() == b.Identifier() || a.key().Equal(b.key()) {
		t.Errorf("two identities are the same: %s", a.Identifier())
	}
	if err := a.History().CheckTime(epoch, 0); err != nil {
		t.Errorf("a new identity does not hold: %v", err)
	}
}

// A clock with nanoseconds must not make a new identity that does not hold yet.
func TestNewHoldsAtOnce(t *testing.T) {
	now := epoch.Add(time.Second - 1)
	id, err := New(now)
	if err != nil {
		t.Fatal(err)
	}
	if id, err = id.Rotate(now); err != nil {
		t.Fatalf("rotating at once: %v", err)
	}
	if err := id.History().CheckTime(now, 0); err != nil {
		t.Error(err)
	}
}

func TestNewRefusesImpossibleTimes(t *testing.T) {
	for _, now := range []time.Time{{}, time.Unix(-1, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		_, err := New(now)
		wantError(t, err, "making identity: ", "set this machine's clock")
	}
}

func TestRotateRefusesTimes(t *testing.T) {
	id := testIdentity(t, 2)
	_, err := id.Rotate(epoch)
	if !errors.Is(err, ErrNotYetValid) {
		t.Errorf("Rotate before the last change = %v, want %v", err, ErrNotYetValid)
	}
	wantError(t, err, "rotating: identity "+id.Identifier().String())
	if _, err = id.Rotate(id.History().Expires()); !errors.Is(err, ErrExpired) {
		t.Errorf("Rotate after the end = %v, want %v", err, ErrExpired)
	}
	_, err = id.rotateTo(testKey(1), epoch.Add(2*time.Hour), Validity)
	wantError(t, err, "rotating identity", "key occurs in an earlier change")
}

func TestRotateLeavesTheOldAsItWas(t *testing.T) {
	id := testIdentity(t, 1)
	before := id.MarshalPEM()
	next, err := id.Rotate(epoch.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(id.MarshalPEM(), before) {
		t.Error("Rotate changed the old identity")
	}
	if next.key().Equal(id.key()) || next.Identifier() != id.Identifier() {
		t.Errorf("Rotate kept the key or changed the identifier: %v, %v", id, next)
	}
}

// spellings returns how a secret could show up in printed text.
func spellings(secret []byte) []string {
	list := fmt.Sprintf("%d", secret)
	return []string{
		string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		strings.Trim(list, "[]"), fmt.Sprintf("% x", secret), fmt.Sprintf("%#v", secret)[len("[]byte{"):][:40],
		base64.StdEncoding.EncodeToString(secret)[:40],
	}
}

func TestIdentityPrintsWithoutItsKey(t *testing.T) {
	id, err := New(epoch)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Pub  Identity
		priv Identity
		ptr  *Identity
		list []Identity
	}
	held := holder{*id, *id, id, []Identity{*id}}
	var printed []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t", "%10v", "%!"} {
		for _, v := range []any{id, *id, &id, held, &held, held.list, map[string]Identity{"k": *id}} {
			printed = append(printed, fmt.Sprintf(verb, v))
		}
	}
	var slogged bytes.Buffer
	slog.New(slog.NewTextHandler(&slogged, nil)).Info("m", "id", id, "value", *id, "held", held)
	slog.New(slog.NewJSONHandler(&slogged, nil)).Info("m", "id", id, "value", *id, "held", held)
	js, err := json.Marshal([]any{id, *id, held})
	if err != nil {
		t.Fatal(err)
	}
	printed = append(printed, slogged.String(), string(js), id.String(), fmt.Errorf("x: %v", id).Error())
	for _, s := range printed {
		for _, secret := range spellings(id.key().Seed()) {
			if strings.Contains(s, secret) {
				t.Fatalf("the key is in %q", s)
			}
		}
	}
	want := "identity(" + id.Identifier().String() + ", private key redacted)"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, id); got != want {
			t.Errorf("Sprintf(%q) = %q, want %q", verb, got, want)
		}
	}
	if got := fmt.Sprint(Identity{}); got != "identity(none)" {
		t.Errorf("Sprint(Identity{}) = %q", got)
	}
}

// The search above finds a key where there is one.
func TestSpellings(t *testing.T) {
	seed := testIdentity(t, 1).key().Seed()
	for _, verb := range []string{"%v", "%#v", "%s", "%x", "%X", "% x"} {
		s, found := fmt.Sprintf(verb, seed), false
		for _, secret := range spellings(seed) {
			found = found || strings.Contains(s, secret)
		}
		if !found {
			t.Errorf("a key printed with %s is not recognized: %s", verb, s)
		}
	}
}
