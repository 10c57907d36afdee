// Package canon owns the one CBOR profile that Culvert signs and sends: core
// deterministic encoding (RFC 8949, section 4.2.1), checked when read, so that
// every value has exactly one encoding. It knows none of the values.
package canon

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// ErrNotCanonical is wrapped by Unmarshal's error for bytes that decode but
// are not the deterministic encoding of what they decode to.
var ErrNotCanonical = errors.New("not in deterministic encoding")

var (
	enc = mustEnc()
	dec = mustDec()
)

func mustEnc() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
}

func mustDec() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: 1024,
		MaxMapPairs:      64,
		UTF8:             cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}

// Marshal returns the deterministic encoding of v. Structs use integer keys by
// the tag `cbor:"1,keyasint,omitempty"`.
func Marshal(v any) ([]byte, error) {
	b, err := enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding %T: %w", v, err)
	}
	return b, nil
}

// Unmarshal reads one value from all of data into v and refuses any encoding
// but the deterministic one. Map keys that v does not know are passed over, so
// that later versions can add fields; what must not be extended (signed
// structures) uses [UnmarshalExact]. The caller has bounded len(data).
func Unmarshal(data []byte, v any) error {
	var generic any
	if err := dec.Unmarshal(data, &generic); err != nil {
		return fmt.Errorf("decoding CBOR: %w", err)
	}
	again, err := enc.Marshal(generic)
	if err != nil {
		return fmt.Errorf("decoding CBOR: %w", err)
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("decoding CBOR: %w", ErrNotCanonical)
	}
	if err := dec.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decoding CBOR: %w", err)
	}
	return nil
}

// UnmarshalExact is [Unmarshal] for values with nothing in them that v does not
// know: what it accepts, Marshal(v) prints back to the same bytes. It holds no
// more than two copies of data meanwhile, v's own among them.
func UnmarshalExact(data []byte, v any) error {
	if err := dec.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decoding CBOR: %w", err)
	}
	// That v prints the same bytes says both: they are the deterministic
	// encoding, and v holds all that is in them.
	again, err := enc.Marshal(v)
	if err != nil {
		return fmt.Errorf("decoding CBOR: %w", err)
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("decoding CBOR into %T: %w, or with fields that are unknown or empty", v, ErrNotCanonical)
	}
	return nil
}
