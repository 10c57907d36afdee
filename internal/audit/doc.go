// Package audit owns the audit log: one line of JSON for each decision that a
// process makes about somebody else, and one for each end of what it allowed,
// in a file or on a standard stream. docs/audit.md has the schema for those who
// read it.
//
// A line is handed to a bounded queue and written by one goroutine, whole and
// in order, each by one write. What happens while the sink takes nothing is the
// setting [Config.Strict]. A line that was written has been taken by the system;
// nothing is synced to a disk.
//
// It decides nothing itself, keeps nothing apart from the queue, and never
// rotates, compresses or removes a file: whoever renames one gets a new one.
package audit
