package identity

import "fmt"

// maxName is the length of a DNS label, which pods' names are.
const maxName = 63

// CheckName says what is wrong with the name of a process, by which one that
// is started anew under the same identity is known: 1 to 63 letters, digits,
// dots, hyphens and underscores.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("a name has 1 to %d characters, this one has %d", maxName, len(name))
	}
	for _, r := range name {
		if !nameRune(r) {
			return fmt.Errorf("a name has letters, digits, dots, hyphens and underscores only, not %q", r)
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_'
}
