package remedy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

func TestWord(t *testing.T) {
	op := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, "ok"},
		{tunnel.ErrClosed, "ok"},
		{&channel.RefusedError{Code: code.NotRegistered}, "not_registered"},
		{fmt.Errorf("hop 1: %w", &channel.RefusedError{Code: code.ExtendDenied}), "extend_denied"},
		{&channel.RefusedError{Code: 60000}, Unknown},
		{&channel.CloseError{Code: code.Shutdown}, "shutdown"},
		{&tunnel.ClosedError{Code: code.Limit}, "limit"},
		{&tunnel.RefusedError{Code: code.StreamDenied}, "stream_denied"},
		{&channel.PeerError{Code: code.IdentityRevoked, Err: io.EOF}, "identity_revoked"},
		{&channel.LostError{Code: code.Timeout, Err: op}, "timeout"},
		{&channel.LostError{Code: code.UnknownChannel, Err: &channel.RefusedError{Code: code.Gone}}, "unknown_channel"},
		{&channel.HandshakeError{Step: "identity", Err: &channel.IdentityError{}}, WrongIdentity},
		{&channel.HandshakeError{Step: "identity", Err: identity.ErrRolledBack}, "rolled_back"},
		{&channel.HandshakeError{Step: "identity", Err: identity.ErrDiverged}, "diverged"},
		{&channel.HandshakeError{Step: "version", Err: &channel.VersionError{}}, Version},
		{&channel.HandshakeError{Step: "message 2", Err: io.ErrUnexpectedEOF}, Handshake},
		{&channel.HandshakeError{Step: "message 2", Err: os.ErrDeadlineExceeded}, "timeout"},
		{&channel.HandshakeError{Step: "message 2", Err: context.Canceled}, Cancelled},
		{channel.ErrDead, "dead"},
		{channel.ErrKeyExhausted, "key_exhausted"},
		{fmt.Errorf("x: %w", channel.ErrProtocol), "protocol"},
		{context.DeadlineExceeded, "timeout"},
		{&net.DNSError{IsTimeout: true}, "timeout"},
		{errors.Join(op, &channel.RefusedError{Code: code.Busy}), "busy"},
		{op, ""},
		{errors.New("else"), ""},
	} {
		if got := Word(tt.err); got != tt.want {
			t.Errorf("Word(%v): %q, want %q", tt.err, got, tt.want)
		}
	}
}

// There is a sentence for words alone, each fit to stand behind others in a log, and with
// facts it says what they are.
func TestSentences(t *testing.T) {
	words := Words()
	for c, name := range code.All() {
		if c != code.OK {
			words = append(words, name)
		}
	}
	for word, text := range sentences {
		if !slices.Contains(words, word) {
			t.Errorf("nothing is called %q", word)
		}
		if strings.HasSuffix(text, ".") || strings.ContainsAny(text, "\n`") || text == "" || strings.ToLower(text[:1]) != text[:1] {
			t.Errorf("%s: %q is no sentence for a log", word, text)
		}
		facts := Facts{Inlet: "fact-i", Outlet: "fact-o", Got: "fact-g", Next: "fact-n", Service: "fact-s"}
		for _, f := range []Facts{{}, facts} {
			if got := Of(word, f); strings.ContainsAny(got, "{}") {
				t.Errorf("%s: %q names a fact that there is not", word, got)
			}
		}
		if known := Of(word, facts); strings.Contains(text, "{") != strings.Contains(known, "fact-") {
			t.Errorf("%s: %q, of %q", word, known, text)
		}
	}
	if got := Of("ok", Facts{}) + Of("", Facts{}) + Of(Unknown, Facts{}); got != "" {
		t.Errorf("%q, want nothing to do where all is well, and where nothing is known", got)
	}
	// What a peer has said is put in as it is, and never read for braces.
	if got := Of(code.ServiceUnknown.String(), Facts{Service: "{inlet}", Inlet: "x"}); !strings.Contains(got, "({inlet})") {
		t.Errorf("a service's name was read: %q", got)
	}
}

// docs/operations.md says to do what the programs do, in the same words.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([a-z_]+)`")
	plain := strings.NewReplacer("`", "", `"`, "")
	documented := map[string]bool{}
	for _, what := range []string{"code", "word"} {
		_, rest, ok := strings.Cut(string(text), "\n| "+what+" | the cause, usually | what to do |\n|---|---|---|\n")
		if !ok {
			t.Fatalf("docs/operations.md has no table of %ss", what)
		}
		for line := range strings.Lines(rest) {
			cells := strings.Split(strings.TrimSuffix(line, "\n"), " | ")
			if len(cells) != 3 {
				break
			}
			does := plain.Replace(strings.TrimSuffix(cells[2], " |"))
			for _, m := range quoted.FindAllStringSubmatch(cells[0], -1) {
				documented[m[1]] = true
				if want := plain.Replace(Of(m[1], Facts{})); !strings.HasPrefix(does, want) {
					t.Errorf("docs/operations.md says to do about %s\n%s\nthe programs say\n%s", m[1], does, want)
				}
			}
		}
	}
	for word := range sentences {
		if !documented[word] {
			t.Errorf("docs/operations.md does not say what to do about %s", word)
		}
	}
}
