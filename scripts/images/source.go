package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// A source is what the programs say that they were built from; "" for what is unknown.
type source struct {
	version  string // as modules have them: v1.2.3, or v0.0.0-TIME-COMMIT
	revision string // the commit, in hexadecimal
}

// gcflags are the compiler's: what reads policies, at a start or a reload, need not be
// fast, and is 200 kB smaller without calls that are inlined. The Dockerfile has the same.
const gcflags = "github.com/antlr4-go/antlr/v4=-l"

// ldflags returns the linker's, which tell package obs. The Dockerfile has the same.
func (s source) ldflags() string {
	const obs = "github.com/culvert-net/culvert/internal/obs"
	return fmt.Sprintf("-s -w -X '%s.version=%s' -X '%[1]s.revision=%[3]s'", obs, s.version, s.revision)
}

// describe returns what git says of the folder that this runs in, the repository's
// root: the newest tag of a version and how far from it, or, as Go does it, the time of the
// commit; with +dirty where there is more than that.
func describe(ctx context.Context) (source, error) {
	prefix, err := git(ctx, "rev-parse", "--show-prefix")
	switch {
	case err != nil:
		return source{}, err
	case prefix != "":
		return source{}, errors.New("this folder is a part of another repository")
	}
	var s source
	if s.revision, err = git(ctx, "rev-parse", "HEAD"); err != nil {
		return source{}, err
	}
	if s.version, err = git(ctx, "describe", "--tags", "--match", "v[0-9]*"); err != nil { // there is no tag
		at, err := git(ctx, "-c", "log.showSignature=false", "show", "-s", "--date=format-local:%Y%m%d%H%M%S", "--format=%cd", "HEAD")
		if err != nil {
			return source{}, err
		}
		s.version = "v0.0.0-" + at + "-" + s.revision[:12]
	}
	changed, err := git(ctx, "status", "--porcelain")
	if err != nil {
		return source{}, err
	}
	if changed != "" {
		s.version += "+dirty"
	}
	return s, nil
}

// git runs git and returns what it prints.
func git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...) //nolint:gosec // the arguments are this file's
	cmd.Env = append(cmd.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return "", fmt.Errorf("git %s: %s", args[0], strings.TrimSpace(string(failed.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}
