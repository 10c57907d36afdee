package credential

import "strings"

// ServiceAttribute is the name of the attribute that says which services an outlet
// may offer: one service's name, or several separated by commas.
const ServiceAttribute = "service"

// HasService reports whether attributes say that who has them offers the service:
// whether the name is the value of [ServiceAttribute], or all that stands between two
// of the value's commas or a comma and an end. Names are compared byte for byte, and
// nothing is taken off them: of "a, b" the second is " b". The empty name, and one
// with a comma, are nobody's.
func HasService(attributes map[string]string, name string) bool {
	if name == "" {
		return false
	}
	for offered := range strings.SplitSeq(attributes[ServiceAttribute], ",") {
		if offered == name {
			return true
		}
	}
	return false
}
