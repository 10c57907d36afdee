package app

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/policy"
	"github.com/culvert-net/culvert/pkg/route"
)

// A process whose ticket's file has gone, and that has no credential, does not start as
// if it were nobody's member; one that knows its authority can ask that for another.
func TestTicketFileIsGone(t *testing.T) {
	key, me := newIdentity(t)
	gone := filepath.Join(t.TempDir(), "a.ticket")
	start := func(authority config.AuthorityRef) (*Relay, error) {
		o, _ := newObs(t, "relay")
		return NewRelay(&config.Relay{
			Common: config.Common{Identity: key, State: t.TempDir()}, Trust: config.Trust{TicketFile: gone, Authority: authority},
			Listen: []config.Address{local(0)}, Connect: policy.List(me),
		}, o)
	}
	if _, err := start(config.AuthorityRef{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "ticket_file") || !strings.Contains(err.Error(), "culvert ticket create") {
		t.Errorf("got %v, want which file is not there and what to do", err)
	}
	r, err := start(config.AuthorityRef{Identifier: identity.Identifier{1}, Routes: []route.Route{{{Host: "127.0.0.1", Port: 1, Identifier: identity.Identifier{1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(r.files().Read, gone) {
		t.Errorf("the process may read %q, and not the file of its ticket, which its settings name when they are read again", r.files().Read)
	}
}

// What an inlet or an outlet reads again with its settings it may open when it is
// confined.
func TestConfinedToItsSecrets(t *testing.T) {
	trust, traces := config.Trust{TicketFile: "/secrets/ticket"}, config.Tracing{HeadersFile: "/secrets/headers"}
	for kind, files := range map[string][]string{
		"inlet":  inletFiles(&config.Inlet{Trust: trust, Tracing: traces}).Read,
		"outlet": outletFiles(&config.Outlet{Trust: trust, Tracing: traces}).Read,
	} {
		if !slices.Contains(files, "/secrets/ticket") || !slices.Contains(files, "/secrets/headers") {
			t.Errorf("an %s may read %q", kind, files)
		}
	}
}
