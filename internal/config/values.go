package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/route"
)

// listenAddress reads an address to listen at.
func (s *section) listenAddress(key string) (a Address) {
	s.numberIsText(key)
	s.read(key, func(text string) (err error) {
		if a, err = parseAddress(text, toListen); err == nil {
			path := join(s.path, key)
			s.listen(a, s.origins[path], path)
		}
		return err
	})
	return a
}

// listenAddresses reads a list of addresses to listen at.
func (s *section) listenAddresses(key string) (list []Address) {
	s.list(key, func(text, path string, v *value) error {
		a, err := parseAddress(text, toListen)
		if err == nil {
			s.listen(a, v.at, path)
			list = append(list, a)
		}
		return err
	})
	return list
}

// addresses reads a list of addresses to dial, each once.
func (s *section) addresses(key string) (list []Address) {
	s.list(key, func(text, _ string, _ *value) error {
		a, err := parseAddress(text, toDial)
		if err != nil {
			return err
		}
		if slices.Contains(list, a) {
			return fmt.Errorf("%s is in the list twice: remove one", a)
		}
		list = append(list, a)
		return nil
	})
	return list
}

// identifiers reads a list of identifiers, each once.
func (s *section) identifiers(key string) (list []identity.Identifier) {
	s.list(key, func(text, _ string, v *value) error {
		if _, ok := expressionOf(v); ok {
			return errors.New("an expression stands alone, not in a list: write 'peer.id in [\"IDENTIFIER\"] || …' for both")
		}
		id, err := parseIdentifier(text)
		if err != nil {
			return err
		}
		if slices.Contains(list, id) {
			return fmt.Errorf("%s is in the list twice: remove one", id)
		}
		list = append(list, id)
		return nil
	})
	return list
}

// identifier reads one identifier.
func (s *section) identifier(key string) (id identity.Identifier) {
	s.read(key, func(text string) (err error) {
		id, err = parseIdentifier(text)
		return err
	})
	return id
}

// parseIdentifier adds to identity.ParseIdentifier what people put in its place.
func parseIdentifier(text string) (identity.Identifier, error) {
	id, err := identity.ParseIdentifier(text)
	switch {
	case err == nil:
		return id, nil
	case strings.Contains(text, "://"):
		return id, fmt.Errorf("%w: want the 52 characters alone, without an address", err)
	case strings.HasSuffix(text, ".key"), strings.HasSuffix(text, ".pub"), strings.HasSuffix(text, ".pem"):
		// Anything else may be a key that was pasted here, and is not shown.
		return id, fmt.Errorf("%w: want the identifier, which \"culvert identity show %s\" prints", err, word(text))
	}
	return id, fmt.Errorf("%w: \"culvert identity show FILE\" prints it", err)
}

// routes reads a list of routes, each once. check, if not nil, may refuse one.
func (s *section) routes(key string, check func(route.Route) error) (list []route.Route) {
	var texts []string
	s.list(key, func(text, _ string, v *value) error {
		if v.tight {
			return errors.New("is this another route, or the next hop of the one before? Write a space after the comma, or a route of several hops in quotes")
		}
		r, err := parseRoute(text)
		if err != nil {
			return err
		}
		if slices.Contains(texts, r.String()) {
			return errors.New("this route is in the list twice: remove one")
		}
		if check != nil {
			if err := check(r); err != nil {
				return err
			}
		}
		texts = append(texts, r.String())
		list = append(list, r)
		return nil
	})
	return list
}

// duration reads a time within bounds; 0 if it is not there.
func (s *section) duration(key string, least, most time.Duration) (d time.Duration) {
	v := s.get(key)
	if v == nil {
		return 0
	}
	path := join(s.path, key)
	if v.shape == shapeNumber {
		s.fault(v.at, path, "%s has no unit: write %ss for seconds, or ms, m, h", word(v.text), word(v.text))
		return 0
	}
	text, err := scalarText(v)
	if err == nil {
		d, err = parseDuration(text, least, most)
	}
	if err != nil {
		s.fault(v.at, path, "%w", err)
	}
	return d
}

func parseDuration(text string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s is no time: write a number with a unit, like 500ms, 10s, 2m", quote(text))
	}
	if d < least || d > most {
		return 0, fmt.Errorf("%s is out of range: want %s to %s", text, plain(least), plain(most))
	}
	return d, nil
}

// plain prints whole hours without their zero minutes and seconds.
func plain(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// count reads a whole number from 1 on; 0 if it is not there.
func (s *section) count(key string) int {
	const most = 10_000_000
	v := s.get(key)
	if v == nil {
		return 0
	}
	n, err := strconv.Atoi(strings.ReplaceAll(v.text, "_", ""))
	if v.shape != shapeNumber && v.shape != shapeText || err != nil || n < 1 || n > most {
		s.fault(v.at, join(s.path, key), "want a whole number from 1 to %d", most)
		return 0
	}
	return n
}

// size reads a number of bytes like 10MiB; 0 if it is not there.
func (s *section) size(key string) (n int64) {
	v := s.get(key)
	if v == nil {
		return 0
	}
	err := errSize
	if v.shape == shapeNumber || v.shape == shapeText {
		n, err = parseSize(v.text)
	}
	if err != nil {
		s.fault(v.at, join(s.path, key), "%w", err)
	}
	return n
}

var errSize = errors.New("want a number of bytes, like 65536, 512KiB, 10MiB or 1GiB")

func parseSize(text string) (int64, error) {
	shift := 0
	digits := strings.TrimSuffix(text, "B")
	for i, unit := range []string{"Ki", "Mi", "Gi"} {
		if d, ok := strings.CutSuffix(digits, unit); ok && digits != text {
			digits, shift = d, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || n < 0 || n > 1<<50>>shift {
		return 0, errSize
	}
	return n << shift, nil
}

// choice reads one of a few words.
func (s *section) choice(key string, words ...string) (word string) {
	s.read(key, func(text string) error {
		if !slices.Contains(words, text) {
			return fmt.Errorf("%s: want one of %s", quote(text), strings.Join(words, ", "))
		}
		word = text
		return nil
	})
	return word
}

// serviceName checks a service's name, which is a DNS label so that it can
// stand in host names, metrics and files.
func serviceName(text string) error {
	if len(text) > 63 {
		return fmt.Errorf("the name has %d characters: at most 63 fit", len(text))
	}
	for i, r := range text {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
		case r == '-' && i > 0 && i < len(text)-1:
		case r >= 'A' && r <= 'Z':
			return fmt.Errorf("%s: write the name in lower case", quote(text))
		default:
			return fmt.Errorf("%s has %q at position %d: a name has a to z, 0 to 9 and, inside, hyphens", quote(text), r, i+1)
		}
	}
	return nil
}
