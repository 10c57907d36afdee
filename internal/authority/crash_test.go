package authority

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// crashEnv makes the test binary the process that is killed: its store's and its
// identity's path.
const crashEnv = "AUTHORITY_TEST_STORE"

// TestCrash kills a process again and again while it enrols and revokes. What it
// has said is done is there afterwards, each ticket made at most the members that
// it says, and numbers never go back.
func TestCrash(t *testing.T) {
	if path := os.Getenv(crashEnv); path != "" {
		workUntilKilled(t, path)
		return
	}
	kills := 12
	if testing.Short() {
		kills = 4
	}
	f := start(t, Config{})
	if err := f.id.WriteFile(filepath.Join(filepath.Dir(f.path), "authority.key")); err != nil {
		t.Fatal(err)
	}
	enrolled, revoked := map[identity.Identifier]bool{}, map[identity.Identifier]bool{}
	var highest uint64
	for range kills {
		if err := f.store.Close(); err != nil {
			t.Fatal(err)
		}
		highest = max(highest, killOne(t, f.path, enrolled, revoked))
		f.open(Config{})
		n, entries := f.Number()
		if n <= highest || entries < len(revoked) {
			t.Fatalf("list %d with %d entries after %d with %d", n, entries, highest, len(revoked))
		}
		highest = n
		for id := range revoked {
			if !f.list().list.Set().HasIdentifier(id) {
				t.Errorf("%s was revoked, and is not", id)
			}
		}
		for id := range enrolled {
			if yes, err := f.store.isMember(id); err != nil || !yes {
				t.Errorf("%s was enrolled, and is no member: %v", id, err)
			}
		}
	}
	perTicket := map[credential.TicketID]int{}
	for after := (identity.Identifier{}); ; {
		page, err := f.Members(t.Context(), after, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, m := range page {
			perTicket[m.Ticket]++
			after = m.Identifier
		}
	}
	tickets, err := f.Tickets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, ticket := range tickets {
		if n := perTicket[ticket.ID]; n != ticket.Used {
			t.Errorf("ticket %s was used %d times and made %d members", ticket.ID, ticket.Used, n)
		}
	}
	if len(enrolled) == 0 || len(revoked) == 0 {
		t.Errorf("%d enrolled, %d revoked: the test tests nothing", len(enrolled), len(revoked))
	}
}

// killOne runs a process on the store, kills it at some moment, and notes what it
// has said is done. It returns the highest number that it has spoken of.
func killOne(t *testing.T, path string, enrolled, revoked map[identity.Identifier]bool) (highest uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestCrash$")
	cmd.Env = append(os.Environ(), crashEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	lines := 0
	most := 5 + len(enrolled)%37
	for s := bufio.NewScanner(out); s.Scan(); {
		var number uint64
		var id string
		switch line := s.Text(); {
		case strings.HasPrefix(line, "enrolled "):
			enrolled[parse(t, strings.TrimPrefix(line, "enrolled "))] = true
		case strings.HasPrefix(line, "revoked "):
			if _, err := fmt.Sscanf(line, "revoked %s %d", &id, &number); err != nil {
				t.Fatal(err)
			}
			revoked[parse(t, id)] = true
			if number <= highest {
				t.Errorf("list %d after %d", number, highest)
			}
			highest = number
		default:
			t.Errorf("the process says %q", line)
		}
		if lines++; lines == most { // the next change is under way already
			_ = cmd.Process.Kill()
		}
	}
	return highest
}

func parse(t *testing.T, text string) identity.Identifier {
	t.Helper()
	id, err := identity.ParseIdentifier(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// workUntilKilled enrols and revokes identities that nobody has, and says so.
func workUntilKilled(t *testing.T, path string) {
	id, err := identity.ReadFile(filepath.Join(filepath.Dir(path), "authority.key"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, path: path, id: id}
	f.open(Config{})
	ticket := f.ticket(TicketRequest{Uses: 1000})
	base := int(time.Now().UnixNano() & 0x3fffffff)
	for i := 0; ; i++ {
		if err := f.use(identifier(base+i), ticket); err != nil {
			t.Fatal(err)
		}
		fmt.Println("enrolled", identifier(base+i))
		if i%3 == 0 {
			r := f.revokeID(identifier(base + i + 1<<30))
			fmt.Println("revoked", identifier(base+i+1<<30), r.Number)
		}
	}
}
