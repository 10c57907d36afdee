//go:build e2e && linux

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pg returns the arguments that lead a PostgreSQL client to addr.
func pg(addr string, more ...string) []string {
	host, port := splitAddr(addr)
	return append([]string{"-h", host, "-p", port, "-U", "postgres"}, more...)
}

// psql runs SQL at addr and returns the bare rows.
func psql(t *testing.T, addr, database, sql string) string {
	t.Helper()
	return strings.TrimSpace(runCommand(t, 2*time.Minute, tool(t, "psql"),
		pg(addr, "-d", database, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql)...))
}

// TestRoutes has psql and 1 MB through an outlet reached directly and through
// one, two and three relays.
func TestRoutes(t *testing.T) {
	for relays := range 4 {
		t.Run(routeName(relays), func(t *testing.T) {
			w := chain(t, relays, map[string]string{"orders-db": postgresServer.at(t)})
			db := w.at("inlet", "orders-db")
			if got := psql(t, db, "postgres", "select 6 * 7"); got != "42" {
				t.Errorf("select 6 * 7: got %q", got)
			}
			const size = 1 << 20
			got := psql(t, db, "postgres", fmt.Sprintf("select repeat('abcdefgh', %d)", size/8))
			if want := strings.Repeat("abcdefgh", size/8); got != want {
				t.Errorf("1 MB down: got %d bytes, want %d, equal: %v", len(got), len(want), got == want)
			}
			// Up: through standard input, since a command line has no room for it.
			cmd := exec.Command(tool(t, "psql"), pg(db, "-d", "postgres", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")...)
			cmd.Stdin = strings.NewReader("select length('" + strings.Repeat("x", size) + "');\n")
			out, errOut, code := tryCommand(t, time.Minute, cmd)
			if strings.TrimSpace(out) != fmt.Sprint(size) {
				t.Errorf("1 MB up: got %q, want %d (exit code %d, %s)", cut(out), size, code, cut(errOut))
			}
		})
	}
}

// TestPostgresCancel interrupts psql in a long query. libpq then asks for the
// cancellation over a second connection, which must reach the same server.
func TestPostgresCancel(t *testing.T) { acrossRoutes(t, testPostgresCancel) }

func testPostgresCancel(t *testing.T, relays int) {
	direct := postgresServer.at(t)
	w := chain(t, relays, map[string]string{"orders-db": direct})
	cmd := exec.Command(tool(t, "psql"), pg(w.at("inlet", "orders-db"), "-d", "postgres", "-X", "-c", "select pg_sleep(120) /* to be canceled */")...)
	p, err := startProc("psql", cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	active := func() string {
		return psql(t, direct, "postgres", "select count(*) from pg_stat_activity where state = 'active' and query like '%to be canceled%' and pid <> pg_backend_pid()")
	}
	if !eventually(patience, func() bool { return active() == "1" }) {
		t.Fatalf("the query does not run:\n%s", p.log)
	}
	p.signal(syscall.SIGINT)
	p.wantExit(t, 1, patience)
	if !strings.Contains(p.log.String(), "canceling statement due to user request") {
		t.Errorf("psql printed %q, want the server's word that the query is canceled", p.log)
	}
	if got := active(); got != "0" {
		t.Errorf("%s such queries still run", got)
	}
}

var (
	failedTransactions = regexp.MustCompile(`number of failed transactions: (\d+)`)
	transactions       = regexp.MustCompile(`number of transactions actually processed: (\d+)`)
)

// TestPgbench runs 20 clients for 10 s, 5 in the short form.
func TestPgbench(t *testing.T) { acrossRoutes(t, testPgbench) }

func testPgbench(t *testing.T, relays int) {
	direct := postgresServer.at(t)
	w := chain(t, relays, map[string]string{"orders-db": direct})
	db := w.at("inlet", "orders-db")
	createDatabase(t, direct, "bench")
	runCommand(t, time.Minute, tool(t, "pgbench"), pg(direct, "-i", "-q", "-s", "2", "bench")...)
	out := runCommand(t, time.Minute, tool(t, "pgbench"), pg(db, "-c", "20", "-j", "2", "-T", whole("5", "10"), "bench")...)
	done, failed := transactions.FindStringSubmatch(out), failedTransactions.FindStringSubmatch(out)
	if len(done) != 2 || done[1] == "0" || len(failed) != 2 || failed[1] != "0" {
		t.Errorf("pgbench: want transactions and no failed one:\n%s", out)
	}
	// Each transaction leaves a row of history; none was lost or done twice.
	if got := psql(t, direct, "bench", "select count(*) from pgbench_history"); len(done) == 2 && got != done[1] {
		t.Errorf("the server has %s transactions, pgbench counted %s", got, done[1])
	}
}

// TestDumpRestore dumps a database of 200 MB (64 in the short form) through the tunnel,
// restores the dump through it into another one, and compares what direct dumps of both
// say.
func TestDumpRestore(t *testing.T) {
	size := whole[int64](64<<20, 200<<20)
	direct := postgresServer.at(t)
	createDatabase(t, direct, "source")
	// A row is 1,024 hexadecimal digits and its number; no two are alike.
	psql(t, direct, "source", fmt.Sprintf(`create table big as
		select n, (select string_agg(md5(n || '-' || k), '') from generate_series(1, 32) k) as text from generate_series(1, %d) n`, size/1024))
	want := dumpSum(t, direct, "source")

	acrossRoutes(t, func(t *testing.T, relays int) {
		w := chain(t, relays, map[string]string{"orders-db": direct})
		db := w.at("inlet", "orders-db")
		createDatabase(t, direct, "restored")
		dump := filepath.Join(testDir(t), "dump.sql")
		runCommand(t, 3*time.Minute, tool(t, "pg_dump"), pg(db, "-f", dump, "source")...)
		info, err := os.Stat(dump)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < size {
			t.Fatalf("the dump has %d bytes, want at least %d", info.Size(), size)
		}
		if got := fileSum(t, dump); got != want {
			t.Errorf("the dump through the tunnel differs from a direct one: %s, want %s", got, want)
		}
		runCommand(t, 3*time.Minute, tool(t, "psql"), pg(db, "-d", "restored", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump)...)
		if got := dumpSum(t, direct, "restored"); got != want {
			t.Errorf("what was restored differs from the source: %s, want %s", got, want)
		}
	})
}

// createDatabase makes a database for the length of the test.
func createDatabase(t *testing.T, direct, name string) {
	t.Helper()
	psql(t, direct, "postgres", "create database "+name)
	t.Cleanup(func() { psql(t, direct, "postgres", "drop database "+name+" with (force)") })
}

// dumpSum dumps a database and returns the dump's SHA-256.
func dumpSum(t *testing.T, addr, database string) string {
	t.Helper()
	dump := filepath.Join(testDir(t), database+".sql")
	runCommand(t, 3*time.Minute, tool(t, "pg_dump"), pg(addr, "-f", dump, database)...)
	return fileSum(t, dump)
}

// fileSum returns the SHA-256 of a dump, less the lines that newer versions of
// pg_dump make of a random number.
func fileSum(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte(`\restrict `)) && !bytes.HasPrefix(line, []byte(`\unrestrict `)) {
			_, _ = io.Copy(h, bytes.NewReader(line))
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
