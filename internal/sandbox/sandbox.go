// Package sandbox owns the confinement of this process to the files that it
// needs, by Landlock (landlock(7)): whatever is made of the process later, it opens
// nothing else. Which files it needs its callers say. The network is left alone,
// and so is what is open already.
package sandbox

import (
	"errors"
	"path/filepath"
	"slices"
)

// Files are what a process opens after it was confined. A file's folder counts with
// it, since files are replaced by others of the same name.
type Files struct {
	// Read are files that are read again and again, wherever the links on the way
	// to them lead then.
	Read []string
	// Append are files that are read, appended to, and made anew when they are not
	// there any more.
	Append []string
	// Folders are those whose files are read, made, replaced and removed.
	Folders []string
	// Sockets are those of this process, which it removes when it ends, and makes
	// anew.
	Sockets []string
	// Names says that hosts are looked up by name: what that is configured by may be
	// exchanged meanwhile.
	Names bool
}

// A Report says what holds since [Confine].
type Report struct {
	ABI     int      // Landlock's version, as far as it is used; 0: there is none, and nothing holds
	Read    []string // files and folders, with all below them, that can be read
	Written []string // those that can be written, too
	// Resolves says that hosts are looked up as the system says, whatever takes the
	// place of what says so now.
	Resolves bool
}

// ErrUnavailable says that this system has no Landlock.
var ErrUnavailable = errors.New("this system has no Landlock")

// A grant is what may be done with a file, or with all that is in a folder.
type grant struct {
	path string
	use  use
}

// A use is what may be done.
type use int

const (
	useRead    use = iota // to open for reading
	useAppend             // to open for writing, and to make
	useReplace            // the same, to remove and to rename
	useSocket             // to make sockets, and to remove them
)

// grants says what f needs, each once.
func (f *Files) grants(d disk) []grant {
	var all []grant
	add := func(u use, paths ...string) {
		for _, path := range paths {
			for _, at := range d.holders(path) {
				all = append(all, grant{at, u})
			}
		}
	}
	add(useRead, f.Read...)
	add(useAppend, f.Append...)
	add(useSocket, f.Sockets...)
	for _, path := range f.Folders {
		all = append(all, grant{path, useReplace})
	}
	for _, path := range publicPaths {
		all = append(all, grant{path, useRead})
	}
	for _, path := range resolverFiles {
		all = append(all, grant{path, useRead})
		for _, at := range d.holders(path) { // where a link leads to
			if !isShared(at) {
				all = append(all, grant{at, useRead})
			}
		}
	}
	if f.Names && d.replaceable(resolverConfig) {
		all = append(all, grant{filepath.Dir(resolverConfig), useRead})
	}
	slices.SortFunc(all, compareGrants)
	return slices.Compact(all)
}

// resolves reports whether what takes the place of the resolver's settings can be read.
func (f *Files) resolves(d disk) bool { return f.Names || !d.replaceable(resolverConfig) }

// publicPaths are files and folders that processes of any kind read: to know the time
// of places, to check certificates, and to tell how much they use. None holds a
// secret. What is not there is not needed.
var publicPaths = []string{
	"/proc/self", "/proc/stat",
	"/etc/localtime", "/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo",
	"/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/ca-certificates",
	"/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted",
	"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/var/lib/ca-certificates",
}

// resolverFiles are what package net reads to look up names, and again when they have
// changed.
var resolverFiles = []string{resolverConfig, "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols"}

const resolverConfig = "/etc/resolv.conf"

// isShared reports whether a folder is the system's: many programs keep files in it
// that have nothing to do with each other.
func isShared(folder string) bool { return depth(folder) < 2 }
