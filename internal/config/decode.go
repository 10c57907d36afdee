package config

import (
	"fmt"
	"io/fs"
)

// A decoder turns values into settings and collects what is wrong with them.
type decoder struct {
	kind      Kind
	file      string // "" if there is none
	info      fs.FileInfo
	text      string // of the file
	faults    Faults
	origins   map[string]Origin
	listening []use // to find addresses taken twice
	elsewhere bool  // the settings may be another machine's, which has the files that they name
}

// A use is an address that is to be listened at.
type use struct {
	addr Address
	at   Origin
	key  string
}

func (d *decoder) fault(at Origin, key, format string, args ...any) {
	d.faults = append(d.faults, &Fault{At: at, Key: key, Err: fmt.Errorf(format, args...)})
}

// listen notes that an address is listened at, and reports one that cannot be
// because of an earlier one.
func (d *decoder) listen(a Address, at Origin, key string) {
	if a.IsZero() {
		return
	}
	for _, u := range d.listening {
		if !a.overlaps(u.addr) {
			continue
		}
		first := u.at.String()
		if u.at.Name == "" {
			first = u.key + " in " + first
		}
		d.fault(at, key, "%s is taken already, by %s (%s): choose another port", a, u.addr, first)
		return
	}
	d.listening = append(d.listening, use{a, at, key})
}
