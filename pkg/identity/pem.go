package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/subtle"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	privateBlock = "CULVERT PRIVATE KEY"
	publicBlock  = "CULVERT IDENTITY"
)

// MarshalPEM returns the content of a private file. It holds the private key in
// the clear: write it nowhere but to a file that only its owner can read, or
// use [Identity.WriteFile].
func (id *Identity) MarshalPEM() []byte {
	seed := id.key().Seed()
	defer clear(seed)
	private := pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: seed})
	return append(private, id.history.MarshalPEM()...)
}

// MarshalPEM returns the content of a public file.
func (h *History) MarshalPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: h.raw})
}

// parsePEM reads the content of a private or a public file: what it accepts,
// MarshalPEM prints back to the same bytes. The key is nil for a public file.
// Errors say what is wrong and what to do, but hold no part of data.
func parsePEM(data []byte) (ed25519.PrivateKey, *History, error) {
	blocks, err := splitPEM(data)
	if err != nil {
		return nil, nil, err
	}
	var private *pem.Block
	if blocks[0].Type == privateBlock {
		private = blocks[0]
		defer clear(private.Bytes)
		blocks = blocks[1:]
	}
	if len(blocks) == 0 {
		return nil, nil, fmt.Errorf("block %q is missing behind the private key: restore the whole file", publicBlock)
	}
	if len(blocks) > 1 || blocks[0].Type != publicBlock {
		return nil, nil, fmt.Errorf("blocks are repeated or out of order: keep one %q (private files only), then one %q", privateBlock, publicBlock)
	}
	h, err := ParseHistory(blocks[0].Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("block %q is damaged: %w: restore the file", publicBlock, err)
	}
	if private == nil {
		return nil, h, nil
	}
	if len(private.Bytes) != ed25519.SeedSize {
		return nil, nil, fmt.Errorf("block %q holds %d bytes, want %d: restore the file", privateBlock, len(private.Bytes), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(private.Bytes)
	if subtle.ConstantTimeCompare(key.Public().(ed25519.PublicKey), h.key) != 1 {
		return nil, nil, errors.New("private key and identity do not belong together: restore both blocks from one file")
	}
	return key, h, nil
}

// splitPEM cuts data into at least one block, all of known types and in the one
// form that encoding/pem prints. pem.Decode itself is generous: it skips what
// is no block, and takes headers, blanks and several line ends.
func splitPEM(data []byte) ([]*pem.Block, error) {
	if len(data) == 0 {
		return nil, errors.New("file is empty: restore it or make a new identity")
	}
	if bytes.ContainsRune(data, '\r') {
		return nil, errors.New("file has CR (Windows) line ends: convert it to LF line ends")
	}
	if !bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		return nil, errors.New("file does not start with a PEM block: name one that \"culvert identity new\" wrote, or remove the text in front of it")
	}
	var blocks []*pem.Block
	for rest := data; len(rest) > 0; {
		b, err := nextPEM(&rest)
		if err != nil {
			for _, b := range blocks {
				clear(b.Bytes)
			}
			return nil, err
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// nextPEM takes one block off the front of rest.
func nextPEM(rest *[]byte) (*pem.Block, error) {
	data := *rest
	b, tail := pem.Decode(data)
	if b == nil {
		return nil, errors.New("file is cut off or has text behind or between its PEM blocks: restore it, or remove that text")
	}
	if b.Type != privateBlock && b.Type != publicBlock {
		return nil, fmt.Errorf("file holds a PEM block that is neither %q nor %q: name one that \"culvert identity new\" wrote", privateBlock, publicBlock)
	}
	if len(b.Headers) > 0 {
		return nil, fmt.Errorf("block %q has PEM headers: remove them", b.Type)
	}
	head := data[:len(data)-len(tail)]
	again := pem.EncodeToMemory(b)
	defer clear(again)
	if !bytes.Equal(head, again) {
		return nil, fmt.Errorf("block %q is damaged or not in the form it was written in (text in front of it, line lengths, blanks, a missing newline at the end): restore the file", b.Type)
	}
	*rest = tail
	return b, nil
}
