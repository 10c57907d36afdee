package main

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/internal/authority/admin"
	"github.com/culvert-net/culvert/internal/config"
	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/identity"
)

// An authority that has its store open and does not answer yet, or not any more, is
// waited for: by a person's clock it has been started, or stopped.
func TestReachWaitsForTheStore(t *testing.T) {
	dir := t.TempDir()
	id, err := identity.New(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	cfg := &config.Authority{
		Common: config.Common{Identity: filepath.Join(dir, "authority.key"), Admin: fmt.Sprintf("127.0.0.1:%d", testenv.Port(t))}, // nobody answers there
		Store:  filepath.Join(dir, "authority.db"),
	}
	if err := id.WriteFile(cfg.Identity); err != nil {
		t.Fatal(err)
	}
	store, err := authority.OpenStore(cfg.Store, id.Identifier())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.NewAccess(admin.AccessFile(cfg.Store)); err != nil {
		t.Fatal(err)
	}
	asked := 0
	offline, err := reach(t.Context(), cfg, func(ctx context.Context, s admin.Service) error {
		if asked++; asked == 2 {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}
		_, err := s.Tickets(ctx)
		return err
	})
	if err != nil || offline == nil {
		t.Fatalf("%v, %v: want the store", offline, err)
	}
	if err := offline.Close(); err != nil {
		t.Error(err)
	}
	if asked != 2 {
		t.Errorf("asked %d times, want twice", asked)
	}
}
