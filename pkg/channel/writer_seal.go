package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
)

// finish seals the records in buf[start:n], adds what the channel has to send or
// the record that ends the direction, and returns where they end. Records are
// sealed in the order in which they stand.
func (w *writer) finish(buf *wireBuf, start, n int, last []byte) (int, error) {
	if err := w.seal(buf[start:n]); err != nil {
		return n, err
	}
	switch {
	case last != nil:
		return w.sealRecord(buf[:], n, last)
	case w.channel != nil:
		return w.gather(w.channel, buf, n)
	}
	return n, nil
}

// gather seals what the channel has to send into buf, from n on, as far as whole
// records fit, and returns where they end.
func (w *writer) gather(ch *Channel, buf *wireBuf, n int) (int, error) {
	for wireBufSize-n > headerLen+typeLen+tagLen {
		room := min(maxPlain, wireBufSize-n-headerLen-tagLen)
		plain, pinned := ch.fill(w.conn, buf[n+headerLen:][:room])
		if plain == nil {
			break
		}
		var err error
		n, err = w.sealRecord(buf[:], n, plain)
		if pinned != nil {
			ch.unpin(pinned)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// controlLocked puts the control records that are due into buf's headroom and
// returns where they start.
func (w *writer) controlLocked(buf *wireBuf) int {
	start := headroom
	put := func(t recordType, body []byte) {
		start -= headerLen + typeLen + len(body) + tagLen
		binary.BigEndian.PutUint16(buf[start:], uint16(typeLen+len(body)))
		buf[start+headerLen] = byte(t)
		copy(buf[start+headerLen+typeLen:], body)
	}
	var number [8]byte
	if w.ping {
		binary.BigEndian.PutUint64(number[:], uint64(time.Since(w.base)))
		put(typePing, number[:])
	}
	if w.pong {
		put(typePong, w.echo[:])
	}
	if w.ack {
		binary.BigEndian.PutUint64(number[:], w.channel.ack(w.conn))
		put(typeAck, number[:])
	}
	if w.first != nil {
		put(typeAttached, w.first)
	}
	w.ping, w.pong, w.ack, w.first = false, false, false, nil
	return start
}

// seal turns b's plaintext records into ciphertext in place.
func (w *writer) seal(b []byte) error {
	for off := 0; off < len(b); {
		n := int(binary.BigEndian.Uint16(b[off:]))
		end, err := w.sealRecord(b, off, b[off+headerLen:][:n])
		if err != nil {
			return err
		}
		off = end
	}
	return nil
}

// sealRecord puts a record at off into b and returns where it ends. Its plaintext
// stands where its ciphertext goes, or outside b.
func (w *writer) sealRecord(b []byte, off int, plain []byte) (int, error) {
	if w.keyBytes.Add(uint64(len(plain))) > maxKeyBytes {
		return 0, ErrKeyExhausted
	}
	at := off + headerLen
	sealed, err := w.cipher.Seal(b[at:at], nil, plain)
	if err != nil {
		return 0, fmt.Errorf("sealing a record: %w", err)
	}
	binary.BigEndian.PutUint16(b[off:], uint16(len(sealed)))
	return at + len(sealed), nil
}

// send writes all of b to nc. It returns early, with what is left of b, only
// when a deadline frees an inline writer.
func (w *writer) send(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, nil // no sign of life either
	}
	for len(b) > 0 {
		n, err := w.out.Write(b)
		b = b[n:]
		if err == nil {
			continue
		}
		kicked, inline := w.takeKick(err)
		if !kicked {
			return nil, fmt.Errorf("writing to the path: %w", err)
		}
		if inline {
			return b, nil
		}
	}
	w.sent.Store(int64(time.Since(w.base)))
	return nil, nil
}

// takeKick reports whether err is only the time-out by which setDeadline frees
// an inline writer, and whether this is one; it restores nc's own deadline.
func (w *writer) takeKick(err error) (kicked, inline bool) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.kicked {
		return false, false
	}
	w.kicked = false
	_ = w.nc.SetWriteDeadline(w.ncDeadline)
	return true, w.inline
}
