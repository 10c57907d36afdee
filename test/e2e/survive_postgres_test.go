//go:build e2e && linux

package e2e

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// oneRelay starts a relay, an outlet that offers the target as "db", and an
// inlet, and returns the relay and where the inlet's clients connect. relayExtra
// is more YAML for the relay.
func oneRelay(t *testing.T, target, relayExtra string) (relay *node, addr string) {
	t.Helper()
	w := newWorld(t)
	relay = w.relay("relay", relayConfig{Register: []string{"outlet"}, Connect: []string{"inlet"}, Extra: relayExtra})
	w.outlet("outlet", outletConfig{Relays: []string{w.hop("relay")}, Services: []service{{"db", target, []string{"inlet"}}}})
	w.inlet("inlet", inletConfig{Services: []local{{"db", "outlet", []string{w.hop("relay")}}}})
	return relay, w.at("inlet", "db")
}

// TestSurvivePgbench runs pgbench while the relay is killed: no transaction
// fails, no client is aborted.
func TestSurvivePgbench(t *testing.T) {
	t.Parallel()
	direct := postgresServer.at(t)
	relay, db := oneRelay(t, direct, "")
	createDatabase(t, direct, "survive_bench")
	runCommand(t, time.Minute, tool(t, "pgbench"), pg(direct, "-i", "-q", "-s", "2", "survive_bench")...)
	const clients = 10
	v := killEvery(relay, howLong(time.Second, 1500*time.Millisecond))
	// Aborted clients make it exit with 2.
	out := runCommand(t, 2*time.Minute, tool(t, "pgbench"), pg(db, "-c", fmt.Sprint(clients), "-j", "2", "-T", fmt.Sprint(howLong(8, 60)), "survive_bench")...)
	kills := v.end()
	done, failed := transactions.FindStringSubmatch(out), failedTransactions.FindStringSubmatch(out)
	if len(done) != 2 || done[1] == "0" || len(failed) != 2 || failed[1] != "0" {
		t.Fatalf("pgbench: want transactions and no failed one:\n%s", out)
	}
	// Each transaction leaves a row of history; none was lost or done twice.
	if got := psql(t, direct, "survive_bench", "select count(*) from pgbench_history"); got != done[1] {
		t.Errorf("the server has %s transactions, pgbench counted %s", got, done[1])
	}
	t.Logf("relay killed %d times, %s transactions, %s failed", kills, done[1], failed[1])
	note(t, summary{loads: 1, deaths: kills, streams: clients})
}

// TestSurviveOpenTransaction leaves a transaction open across ten deaths of the
// relay and commits it then.
func TestSurviveOpenTransaction(t *testing.T) {
	t.Parallel()
	const kills = 10
	direct := postgresServer.at(t)
	relay, db := oneRelay(t, direct, "")
	createDatabase(t, direct, "survive_open")
	psql(t, direct, "survive_open", "create table kept (n int)")
	cmd := exec.Command(tool(t, "psql"), pg(db, "-d", "survive_open", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := startProc("psql", cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	say := func(sql, answer string) {
		t.Helper()
		if _, err := io.WriteString(in, sql+"\n"); err != nil {
			t.Fatal(err)
		}
		if !p.log.wait(patience, answer) {
			t.Fatalf("psql: no %q after %q:\n%s", answer, sql, p.log)
		}
	}
	say("begin; insert into kept values (0) returning 'row ' || n;", "row 0\n")
	for n := 1; n <= kills; n++ {
		relay.kill()
		relay.restart()
		say(fmt.Sprintf("insert into kept values (%d) returning 'row ' || n;", n), fmt.Sprintf("row %d\n", n))
	}
	if got := psql(t, direct, "survive_open", "select count(*) from kept"); got != "0" {
		t.Errorf("%s rows are there before the commit", got)
	}
	say("commit; select 'comm' || 'itted';", "committed\n")
	in.Close()
	p.wantExit(t, 0, patience)
	if got := psql(t, direct, "survive_open", "select count(distinct n) from kept"); got != strconv.Itoa(kills+1) {
		t.Errorf("%s rows are there after the commit, want %d", got, kills+1)
	}
	note(t, summary{loads: 1, deaths: kills, streams: 1})
}

// TestSurviveDump pipes a dump into another database while the relay, through
// which both run, is killed. The relay is slow, so that it takes a while.
func TestSurviveDump(t *testing.T) {
	t.Parallel()
	size := howLong(16, 200) << 20
	direct := postgresServer.at(t)
	relay, db := oneRelay(t, direct, fmt.Sprintf("limits:\n  bytes_per_second: %dMiB\n", howLong(4, 6)))
	for _, name := range []string{"survive_source", "survive_copy"} {
		createDatabase(t, direct, name)
	}
	psql(t, direct, "survive_source", fmt.Sprintf(`create table big as
		select n, (select string_agg(md5(n || '-' || k), '') from generate_series(1, 32) k) as text from generate_series(1, %d) n`, size/1024))
	quote := func(path string, args []string) string { return "'" + path + "' '" + strings.Join(args, "' '") + "'" }
	v := killEvery(relay, time.Second)
	runCommand(t, 4*time.Minute, "bash", "-o", "pipefail", "-c",
		quote(tool(t, "pg_dump"), pg(db, "survive_source"))+" | "+quote(tool(t, "psql"), pg(db, "-d", "survive_copy", "-X", "-q", "-v", "ON_ERROR_STOP=1")))
	kills := v.end()
	if got, want := dumpSum(t, direct, "survive_copy"), dumpSum(t, direct, "survive_source"); got != want {
		t.Errorf("what was restored differs from the source: %s, want %s", got, want)
	}
	if kills < 3 {
		t.Errorf("the relay was killed %d times only", kills)
	}
	t.Logf("relay killed %d times during a dump and a restore of %d MiB each", kills, size>>20)
	note(t, summary{loads: 1, deaths: kills, streams: 2, bytes: int64(2 * size)})
}
