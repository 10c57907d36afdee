package obs

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// logged returns the lines of a log with one entry of each level.
func logged(t *testing.T, format, level string) []string {
	t.Helper()
	var out lockedBuffer
	o, err := New(Config{Command: "relay", LogFormat: format, LogLevel: level, LogOutput: &out})
	if err != nil {
		t.Fatal(err)
	}
	o.Log.Debug("d", zap.Duration("after", 1500*time.Millisecond), zap.String("text", "a\nb\x1b"))
	o.Log.Info("i")
	o.Log.Warn("w")
	o.Log.Error("e")
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func TestLogLevels(t *testing.T) {
	for _, tt := range []struct {
		level string
		want  int // how many of the four levels
	}{{"debug", 4}, {"info", 3}, {"", 3}, {"warn", 2}, {"error", 1}} {
		for _, format := range []string{"", "console", "json"} {
			if got := logged(t, format, tt.level); len(got) != tt.want {
				t.Errorf("level %q, format %q: %d lines, want %d: %q", tt.level, format, len(got), tt.want, got)
			}
		}
	}
}

func TestLogFormats(t *testing.T) {
	want := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d{4})\tDEBUG\trelay\td\t\{"after": "1\.5s", "text": "a\\nb\\u001b"\}$`)
	for _, format := range []string{"", "console"} {
		if got := logged(t, format, "debug"); !want.MatchString(got[0]) {
			t.Errorf("format %q: %q, want %s", format, got[0], want)
		}
	}
	line := logged(t, "json", "debug")[0]
	var entry map[string]string
	if err := json.Unmarshal([]byte(line), &entry); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	at, err := time.Parse(time.RFC3339Nano, entry["time"])
	if _, offset := at.Zone(); err != nil || offset != 0 || time.Since(at) > time.Minute {
		t.Errorf("time %q, want now in UTC: %v", entry["time"], err)
	}
	delete(entry, "time")
	for key, want := range map[string]string{"level": "debug", "logger": "relay", "msg": "d", "after": "1.5s", "text": "a\nb\x1b"} {
		if entry[key] != want {
			t.Errorf("%s is %q, want %q", key, entry[key], want)
		}
		delete(entry, key)
	}
	if len(entry) > 0 {
		t.Errorf("more than was asked for: %v", entry)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Command: "relay", LogLevel: "loud"}, `log level "loud": want debug, info, warn or error`},
		{Config{Command: "relay", LogLevel: "INFO"}, `log level "INFO"`},
		{Config{Command: "relay", LogFormat: "xml"}, `log format "xml": want console or json`},
		{Config{}, `command ""`},
		{Config{Command: "Relay"}, `command "Relay"`},
		{Config{Command: "re-lay"}, "want letters and digits"},
	} {
		o, err := New(tt.cfg)
		if o != nil {
			t.Errorf("%+v: an Obs came with the error", tt.cfg)
		}
		wantError(t, err, tt.want)
	}
}
