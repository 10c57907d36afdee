package obs

import (
	"runtime/debug"
	"testing"
)

func TestBuild(t *testing.T) {
	const commit = "0123456789abcdef"
	for _, tt := range []struct {
		version  string
		settings []debug.BuildSetting
		want     string
	}{
		{"", nil, "(unknown version)"},
		{"v1.2.3", nil, "v1.2.3"},
		{"(devel)", []debug.BuildSetting{{Key: "vcs.modified", Value: "true"}}, "(devel)"},
		{"v1.2.3", []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}}, "v1.2.3 (abc)"},
		{"v1.2.3", []debug.BuildSetting{{Key: "vcs.revision", Value: commit}, {Key: "vcs.modified", Value: "false"}}, "v1.2.3 (0123456789ab)"},
		{"v1.2.3", []debug.BuildSetting{{Key: "vcs.revision", Value: commit}, {Key: "vcs.modified", Value: "true"}}, "v1.2.3 (0123456789ab, modified)"},
	} {
		got := buildOf(&debug.BuildInfo{Main: debug.Module{Version: tt.version}, Settings: tt.settings}).String()
		if got != tt.want {
			t.Errorf("%s %v: %q, want %q", tt.version, tt.settings, got, tt.want)
		}
	}
	// What the linker was told counts, whatever the repository beside the source says.
	stamped := buildOf(&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}})
	for _, tt := range [][3]string{
		{"", "", "(devel) (abc, modified)"}, {"v1.2.3", commit, "v1.2.3 (0123456789ab)"}, {"v1.2.3", "", "v1.2.3"}, {"", commit, "(devel) (0123456789ab)"},
	} {
		if got := stamped.named(tt[0], tt[1]).String(); got != tt[2] {
			t.Errorf("told %q and %q: %q, want %q", tt[0], tt[1], got, tt[2])
		}
	}
	if got := buildOf(nil).String(); got != "(unknown version)" {
		t.Errorf("a program without build information: %q", got)
	}
}
