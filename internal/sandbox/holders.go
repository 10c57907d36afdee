package sandbox

import (
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many links a path may lead through, as Linux has it.
const maxLinks = 40

// A disk is what is known of paths. The methods follow links as the kernel does.
type disk struct {
	lstat    func(path string) (fs.FileInfo, error)
	readlink func(path string) (string, error)
	mounted  func(path string) bool // whether something is mounted at the path
}

// systemDisk is the one that there is.
func systemDisk() disk { return disk{os.Lstat, os.Readlink, isMountPoint} }

// holders returns what has to be open to a process so that it can open the file at
// path, whatever takes the file's place: the folder that the path names, those that
// hold the links on the way which are exchanged as a whole, and the one that holds the
// file. Of a device, and of a file in the root folder, it is the file alone. A file
// that is not there needs the folder in which it would be.
//
// The links that are exchanged are the last of a path, and those whose names begin
// with two dots, as Kubernetes has them above the files of a volume. Other links to
// folders are taken for what the system is made of.
func (d disk) holders(path string) []string {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil // there is no current folder: what is relative cannot be opened
	}
	var found []string
	at, rest := "/", split(path)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		here := filepath.Join(at, name)
		info, err := d.lstat(here)
		switch {
		case name == "..":
			at = filepath.Dir(at)
		case err != nil:
			if len(rest) == 0 {
				found = append(found, inFolder(at, here))
			}
			return found
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := d.readlink(here)
			if links++; err != nil || links > maxLinks {
				return found
			}
			if len(rest) == 0 || strings.HasPrefix(name, "..") {
				found = append(found, inFolder(at, here))
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(split(target), rest...)
		case len(rest) == 0 && info.Mode()&fs.ModeDevice != 0:
			return append(found, here)
		case len(rest) == 0:
			return append(found, inFolder(at, here))
		default:
			at = here
		}
	}
	return found
}

// inFolder returns the folder that holds a file, or the file alone where that would be
// the root.
func inFolder(folder, file string) string {
	if depth(folder) == 0 {
		return file
	}
	return folder
}

// replaceable reports whether a file is one that others put another in the place of:
// no link, which leads elsewhere, and nothing mounted, which stays.
func (d disk) replaceable(path string) bool {
	info, err := d.lstat(path)
	return err == nil && info.Mode().IsRegular() && !d.mounted(path)
}

// split returns the names in a path, as it is written.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator })
}

// depth returns how many names a clean absolute path has.
func depth(path string) int { return len(split(path)) }

func compareGrants(a, b grant) int {
	return cmp.Or(strings.Compare(a.path, b.path), cmp.Compare(a.use, b.use))
}
