package obs

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// What was built, where the linker is told, by whoever builds without the repository's
// history beside the source: -X github.com/culvert-net/culvert/internal/obs.version=v1.2.3,
// and .revision=COMMIT. Never written.
var version, revision string

// A Build is what was built, as far as the build recorded it.
type Build struct {
	Version  string // as modules have them: v1.2.3, or (devel)
	Revision string // the commit, in hexadecimal; "" if unknown
	Modified bool   // what was built was not just that commit
}

// ReadBuild returns that of this program.
func ReadBuild() Build {
	info, _ := debug.ReadBuildInfo()
	return buildOf(info).named(version, revision)
}

// named returns the build with what the linker was told, if it was.
func (b Build) named(version, revision string) Build {
	if version == "" && revision == "" {
		return b
	}
	if version == "" {
		version = b.Version
	}
	// Whether the source was just that commit, the version says (-dirty).
	return Build{Version: version, Revision: revision}
}

// buildOf returns what is in info, which may be nil.
func buildOf(info *debug.BuildInfo) Build {
	b := Build{Version: "(unknown version)"}
	if info == nil {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String returns the version, and behind it the commit's first digits.
func (b Build) String() string {
	if b.Revision == "" {
		return b.Version
	}
	s := b.Version + " (" + b.Revision[:min(12, len(b.Revision))]
	if b.Modified {
		s += ", modified"
	}
	return s + ")"
}

// gauge is 1, and has the build in its labels.
func (b Build) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "culvert_build_info", Help: "1; the labels say what was built, and by which Go.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}
