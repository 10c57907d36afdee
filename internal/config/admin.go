package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// adminVariable says where the admin server is, to the process and to who asks it.
const adminVariable = "CULVERT_ADMIN"

// AdminFlags returns a new set of flags that say which running process is meant:
// --admin and --config.
func AdminFlags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("admin", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Var(&given{}, "admin", "ask the process whose admin server is at this `ADDRESS`, host:port or unix:///path")
	fs.Var(&given{}, configFlag, "ask the process whose settings `FILE` this is, of whatever kind")
	return fs
}

// LoadAdmin finds out where the admin server of the process is that src's
// [AdminFlags], variables or the file that they name are about: host:port of a
// loopback, or unix:///path. As everywhere a flag beats a variable beats the file, of
// which nothing else is looked at. The error is a [Faults].
func LoadAdmin(src Source) (string, error) {
	env := newEnviron(src.Environ)
	texts, at := fromFlag(src.Flags, "admin"), Origin{Name: "--admin"}
	if texts == nil {
		if text, _ := env.lookup(adminVariable); strings.TrimSpace(text) != "" {
			texts, at = []string{strings.TrimSpace(text)}, Origin{Name: adminVariable}
		}
	}
	if texts != nil {
		return checkedAdmin(texts[len(texts)-1], at)
	}
	d := &decoder{}
	file, at, ok := d.fileName(src, env)
	switch {
	case d.faults != nil:
		return "", d.faults
	case !ok:
		return "", Faults{{At: Origin{Name: "--admin"}, Err: errors.New("say which process is meant: --admin ADDRESS, --config FILE, or the same as CULVERT_ADMIN or CULVERT_CONFIG")}}
	}
	return fileAdmin(file, at, src.Environ)
}

// checkedAdmin returns an address of an admin server that somebody can be asked at.
func checkedAdmin(text string, at Origin) (string, error) {
	endpoint, a, err := parseEndpoint(text)
	switch {
	case err != nil:
		return "", Faults{{At: at, Key: "admin", Err: err}}
	case !strings.HasPrefix(endpoint, "unix://") && a.Port == 0:
		return "", Faults{{At: at, Key: "admin", Err: errors.New("it has port 0, which is another one at each start, so nobody knows where to ask: give it a port")}}
	}
	return endpoint, nil
}

// fileAdmin reads the address from a settings file of any kind.
func fileAdmin(file string, at Origin, environ []string) (string, error) {
	kind, err := kindOf(file)
	if err != nil {
		return "", Faults{{At: at, Err: fmt.Errorf("settings file %s: %w", quote(file), err)}}
	}
	environ = slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return strings.HasPrefix(v, configVariable+"=") })
	_, admin, err := LoadEndpoints(kind, Source{Environ: append(environ, configVariable+"="+file)})
	switch {
	case err != nil:
		return "", err
	case admin == "":
		return "", Faults{{At: Origin{File: file}, Key: "admin", Err: errors.New("missing: the process serves no status: say where (admin: 127.0.0.1:PORT or unix:///path), and start it anew")}}
	}
	return checkedAdmin(admin, Origin{File: file})
}

// kindOf tells whose settings a file has, as far as it is YAML.
func kindOf(file string) (Kind, error) {
	data, err := readFile(file)
	if err != nil {
		return "", err
	}
	root, faults := parseYAML(file, data)
	if root == nil || root.shape != shapeMap {
		return "", faults
	}
	kind, _ := detect(root)
	if kind == "" {
		return "", errors.New("cannot tell whose settings these are: say where its admin server is with --admin")
	}
	return kind, nil
}
