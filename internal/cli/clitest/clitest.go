// Package clitest owns what the scripts that test the commands have in common:
// they stand in a command's testdata, in the form of testscript, and each runs
// the command as a program of its own in an empty folder, with no CULVERT_
// variables. It tests nothing itself.
package clitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/culvert-net/culvert/internal/testenv"
	"github.com/culvert-net/culvert/pkg/identity"
)

// patience bounds every wait for something that is to happen.
const patience = time.Minute

// Main runs a test binary in which scripts find a command, by its main function
// and the names that it may be called by. It does not return.
func Main(m *testing.M, main func(), names ...string) {
	commands := map[string]func(){}
	for _, name := range names {
		commands[name] = main
	}
	testscript.Main(m, commands)
}

// Run runs the scripts in testdata. Beside testscript's own commands they have:
//
//	exits CODE PROGRAM [ARG...]   the program must end with that exit code
//	identity FILE NAME            makes an identity; $NAME is its identifier
//	address NAME                  $NAME is a loopback's host:port that is the script's
//	occupied NAME                 the same, but taken until the script ends
//	mode FILE OCTAL               the file must have that mode (on Unix)
//	ready PROGRAM [ARG...]        waits until the probe ends with 0
//	refused PROGRAM [ARG...]      waits until the probe says "not ready", which is code 1
func Run(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "identity": makeIdentity, "address": address, "occupied": occupied, "mode": mode, "ready": ready, "refused": refused,
		},
	})
}

// arguments refuses a negated command and one with fewer arguments than least.
func arguments(ts *testscript.TestScript, neg bool, args []string, least int) {
	if neg || len(args) < least {
		ts.Fatalf("want at least %d arguments and no !, got %q", least, args)
	}
}

// exitCode runs a program and returns its exit code.
func exitCode(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("running %q: %v", args, err)
	}
	if exit != nil {
		return exit.ExitCode()
	}
	return 0
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2)
	if got := exitCode(ts, args[1:]); strconv.Itoa(got) != args[0] {
		ts.Fatalf("%q ended with %d, want %s", args[1:], got, args[0])
	}
}

func makeIdentity(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2)
	id, err := identity.New(time.Now().Add(-time.Minute))
	ts.Check(err)
	ts.Check(id.WriteFile(ts.MkAbs(args[0])))
	ts.Setenv(args[1], id.Identifier().String())
}

func address(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1)
	port, release, err := testenv.Reserve()
	ts.Check(err)
	ts.Defer(release)
	ts.Setenv(args[0], fmt.Sprintf("127.0.0.1:%d", port))
}

func occupied(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1)
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], ln.Addr().String())
	var wg sync.WaitGroup
	wg.Go(func() { // a stranger: whoever speaks to it gets a page
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			_ = nc.SetDeadline(time.Now().Add(patience))
			_, _ = nc.Read(make([]byte, 4<<10))
			_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwelcome\n")
			_ = nc.Close()
		}
	})
	ts.Defer(func() {
		_ = ln.Close()
		wg.Wait()
	})
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2)
	if runtime.GOOS == "windows" {
		return // mode bits are made up there
	}
	want, err := strconv.ParseUint(args[1], 8, 32)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := info.Mode().Perm(); got != fs.FileMode(want) {
		ts.Fatalf("%s has mode %04o, want %04o", filepath.Base(args[0]), got, want)
	}
}

func ready(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1)
	await(ts, args, func() bool { return exitCode(ts, args) == 0 })
}

func refused(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1)
	await(ts, args, func() bool {
		return exitCode(ts, args) == 1 && strings.Contains(ts.ReadFile("stderr"), ": not ready: ")
	})
}

// await waits until ok holds, for a while.
func await(ts *testscript.TestScript, args []string, ok func() bool) {
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%q: not within %v", args, patience)
		}
	}
}
