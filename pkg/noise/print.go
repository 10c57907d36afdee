package noise

import "fmt"

// fmt follows a pointer inside a struct when the verb does not fit it, so that
// "%s" of a struct with a key in it shows the key. These methods see to every
// verb. They are not found by fmt where a value sits in an unexported field of
// another struct: keep a Handshake and a Cipher there by pointer, as they come,
// and no Config.

// Format writes what the configuration is for, and no key.
func (cfg Config) Format(f fmt.State, _ rune) {
	if cfg.Pattern == nil {
		fmt.Fprint(f, "noise.Config(no pattern)")
		return
	}
	fmt.Fprintf(f, "noise.Config(%s, initiator %v)", cfg.Pattern.Protocol(cfg.Suite), cfg.Initiator)
}

// Format writes where the handshake stands, and no key.
func (h *Handshake) Format(f fmt.State, _ rune) {
	if h == nil || h.pattern == nil {
		fmt.Fprint(f, "noise.Handshake(none)")
		return
	}
	fmt.Fprintf(f, "noise.Handshake(%s, initiator %v, %d of %d messages)", h.pattern, h.initiator, h.index, len(h.pattern.messages))
}

// Format writes which cipher it is, and no key.
func (c *Cipher) Format(f fmt.State, _ rune) {
	if c == nil || c.aead == nil {
		fmt.Fprint(f, "noise.Cipher(no key)")
		return
	}
	fmt.Fprintf(f, "noise.Cipher(%s)", c.suite)
}
