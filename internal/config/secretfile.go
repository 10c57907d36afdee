package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/culvert-net/culvert/internal/secretfile"
	"github.com/culvert-net/culvert/pkg/credential"
)

// maxSecretFile bounds a file that holds a secret, in bytes: a ticket has fewer, and as
// many headers as there may be, with values that are as long as they may be, just fit.
const maxSecretFile = maxHeaders * (maxHeaderLen + 1<<10)

// readSecret reads a file that only this process's user, and its group, may read; the
// caller clears what it returns. An error shows nothing of what is in it.
func readSecret(path string) ([]byte, error) {
	f, info, err := secretfile.Open(path)
	switch {
	case errors.Is(err, secretfile.ErrNotRegular):
		return nil, errors.New("is no regular file")
	case err != nil:
		return nil, explainOpen(err)
	}
	defer func() { _ = f.Close() }() // only read from
	if err := secretfile.CheckMode(info.Mode()); err != nil {
		return nil, fmt.Errorf("%w: give it mode 0600, and take another secret if somebody may have read it", err)
	}
	b, err := secretfile.Read(f, maxSecretFile)
	switch {
	case errors.Is(err, secretfile.ErrTooLong):
		return nil, fmt.Errorf("has more than %d bytes", maxSecretFile)
	case err != nil:
		return nil, explainOpen(err)
	}
	return b, nil
}

// secretFile returns what is in the file that a key names, and its path; nil, and no
// path, if the key is not there. needed says that the file has to be there: else it may
// be gone, and what is returned is nil.
func (s *section) secretFile(key string, needed bool) (content []byte, path string) {
	s.read(key, func(text string) error {
		path = resolve(text, s.origins[join(s.path, key)])
		b, err := readSecret(path)
		switch {
		case err == nil:
			content = b
			return nil
		case s.elsewhere && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)):
			return nil
		case !needed && errors.Is(err, fs.ErrNotExist):
			return nil
		}
		return fmt.Errorf("%s: %w", quote(path), err)
	})
	return content, path
}

// ticket reads the ticket that a member enrols by: in the settings, or in a file.
func (s *section) ticket(t *Trust) {
	parse := func(text string) error {
		ticket, err := credential.ParseTicket(text)
		if err != nil {
			return fmt.Errorf("%w; \"culvert ticket create\" makes another", err)
		}
		t.Ticket = &ticket
		t.TicketRoutes, err = ticketRoutes(ticket)
		return err
	}
	s.read("ticket", parse)
	var content []byte
	if content, t.TicketFile = s.secretFile("ticket_file", false); content != nil {
		if err := parse(string(content)); err != nil {
			s.fault(s.origins["ticket_file"], "ticket_file", "%s: %w", quote(t.TicketFile), err)
		}
		clear(content)
	}
	if s.has("ticket") && s.has("ticket_file") {
		s.fault(s.origins["ticket_file"], "ticket_file", "there is a ticket already (ticket or CULVERT_TICKET): give one of the two")
	}
}

// headersFile returns the headers that there are with those in the file that a key
// names, and the file's path: each is a line, NAME: VALUE, as HTTP has them (RFC 9112,
// section 5). Empty lines, and those that begin with #, are passed over. No value is
// shown.
func (s *section) headersFile(key string, h TracingHeaders) (all TracingHeaders, path string) {
	content, path := s.secretFile(key, true)
	if content == nil {
		return h, path
	}
	defer clear(content)
	all, err := addHeaders(h, content)
	if err != nil {
		s.fault(s.origins[join(s.path, key)], join(s.path, key), "%s: %w", quote(path), err)
	}
	return all, path
}

// addHeaders returns the headers of h with those that lines are, or h and why one of
// them cannot be sent.
func addHeaders(h TracingHeaders, content []byte) (TracingHeaders, error) {
	all := TracingHeaders{}
	maps.Copy(all, h)
	n := 0
	for line := range strings.SplitSeq(string(content), "\n") {
		n++
		line = strings.Trim(line, " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return h, fmt.Errorf("line %d has no colon: want NAME: VALUE", n)
		}
		if err := all.add(name, strings.Trim(value, " \t")); err != nil {
			return h, fmt.Errorf("line %d %w", n, err)
		}
	}
	if len(all) == len(h) {
		return h, errors.New("has no header: want lines like authorization: Bearer TOKEN")
	}
	return all, nil
}

// add adds a header, or says why it cannot be sent.
func (h TracingHeaders) add(name, value string) error {
	switch {
	case !isToken(name):
		return errors.New("is no name that a header can have")
	case slices.Contains(strings.Fields(reservedWithOTLP), strings.ToLower(name)):
		return errors.New("is set by the protocol: remove it")
	case h.has(name):
		return errors.New("is there twice: upper and lower case are the same")
	case len(h) == maxHeaders:
		return fmt.Errorf("is one too many: at most %d are sent", maxHeaders)
	case len(value) > maxHeaderLen:
		return fmt.Errorf("has %d bytes: at most %d fit", len(value), maxHeaderLen)
	case value == "":
		return errors.New("has no value: write one, or remove the line")
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("holds other characters than those of ASCII that can be seen")
	}
	h[name] = value
	return nil
}

// has reports whether there is a header of that name, however it is written.
func (h TracingHeaders) has(name string) bool {
	for n := range h {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
