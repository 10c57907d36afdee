package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/culvert-net/culvert/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree makes a command with a subcommand that fails as told.
func tree(err error) *cobra.Command {
	root := Group(&cobra.Command{Use: "tool"})
	sub := &cobra.Command{Use: "work FILE", Args: cobra.ExactArgs(1), RunE: func(*cobra.Command, []string) error { return err }}
	sub.Flags().Int("n", 0, "a number")
	root.AddCommand(sub)
	return root
}

func TestExecute(t *testing.T) {
	const hint = "tool: run \"tool work --help\" for the usage\n"
	work := []string{"work", "file"}
	inFile := &config.Fault{At: config.Origin{File: "a.yaml", Line: 3, Column: 4}, Key: "k", Err: errors.New("bad")}
	byFlag := &config.Fault{At: config.Origin{Name: "--listen"}, Key: "listen", Err: errors.New("bad")}
	for _, tt := range []struct {
		name string
		err  error
		args []string
		code int
		want string // on stderr
	}{
		{"done", nil, work, 0, ""},
		{"failure", errors.New("no luck"), work, 1, "tool: no luck\n"},
		{"two lines", fmt.Errorf("one\r\ntwo%s", "\n"), work, 1, "tool: one\ntool: two\n"},
		{"what others have said", errors.New("they say: \x1b]0;gone\a\u009b2J\u202e\tyes\n\x00"), work, 1, "tool: they say: ?]0;gone??2J?\tyes\ntool: ?\n"},
		{"reported already", fmt.Errorf("x: %w", ErrSilent), work, 1, ""},
		{"usage", Usagef("no %s", "sense"), work, 2, "tool: no sense\n" + hint},
		{"wrapped usage", fmt.Errorf("x: %w", Usagef("no sense")), work, 2, "tool: x: no sense\n" + hint},
		{"a fault of the command line", config.Faults{byFlag}, work, 2, "tool: --listen: bad\n" + hint},
		{"a fault of a file", config.Faults{inFile}, work, 1, "tool: a.yaml:3:4: k: bad\n"},
		{"faults of both", config.Faults{byFlag, inFile}, work, 1, "tool: --listen: bad\ntool: a.yaml:3:4: k: bad\n"},
		{"an argument is missing", nil, []string{"work"}, 2, "tool: accepts 1 arg(s), received 0\n" + hint},
		{"unknown flag", nil, []string{"work", "file", "--m"}, 2, "tool: unknown flag: --m\n" + hint},
		{"bad value", nil, []string{"work", "file", "--n", "x"}, 2, "tool: invalid argument \"x\" for \"--n\" flag: strconv.ParseInt: parsing \"x\": invalid syntax\n" + hint},
		{"unknown command", nil, []string{"frob"}, 2, "tool: unknown command \"frob\": one of completion, work\ntool: run \"tool --help\" for the usage\n"},
		{"misspelt command", nil, []string{"worc"}, 2, "tool: unknown command \"worc\" (did you mean \"work\"?)\ntool: run \"tool --help\" for the usage\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Execute(t.Context(), tree(tt.err), tt.args, &stdout, &stderr)
			if code != tt.code || stderr.String() != tt.want || stdout.Len() > 0 {
				t.Errorf("exit code %d, stderr %q, stdout %q; want %d and %q", code, &stderr, &stdout, tt.code, tt.want)
			}
		})
	}
}

// The command's context is the caller's.
func TestExecutePassesContext(t *testing.T) {
	type key struct{}
	var got any
	cmd := &cobra.Command{Use: "tool", RunE: func(cmd *cobra.Command, _ []string) error {
		got = cmd.Context().Value(key{})
		return nil
	}}
	var out bytes.Buffer
	if code := Execute(context.WithValue(t.Context(), key{}, "here"), cmd, nil, &out, &out); code != 0 || got != "here" {
		t.Errorf("exit code %d, context's value %v: %s", code, got, &out)
	}
}

func TestVersion(t *testing.T) {
	got := Version("relay")
	for _, want := range []string{"relay ", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH} {
		if !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%q lacks %q, or is more than a line", got, want)
		}
	}
}
