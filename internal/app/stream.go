package app

import (
	"context"
	"errors"
	"net"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/internal/pump"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/identity"
	"github.com/culvert-net/culvert/pkg/tunnel"
)

// A streamEnd is how one proxied connection ended, as logs and metrics take it.
type streamEnd struct {
	label          string // a code's name, or one of cause.go's labels
	reason         string // for the log; "" after a clean end
	sent, received int64  // bytes from the socket, and to it
	hushed         bool   // the same was logged not long ago
}

// clean reports whether both directions ended with an end of data.
func (e *streamEnd) clean() bool { return e.label == code.OK.String() }

// A streamName is what the log calls one proxied connection.
type streamName struct {
	service string
	peer    identity.Identifier
	client  string
}

// abortive makes the kernel end nc with a reset whenever it is closed, also when
// this process is killed: a clean end is what this process says, never what its
// death looks like.
func abortive(nc *net.TCPConn) {
	_ = nc.SetLinger(0) // a socket that is over already needs none
}

// copyStream carries a stream's data and a socket's, which is abortive, until
// both have ended.
func copyStream(ctx context.Context, nc *net.TCPConn, st *tunnel.Stream, socketReset code.Code) streamEnd {
	r := pump.Both(ctx, &sided{Stream: st, nc: nc, socketReset: socketReset}, nc)
	c, reason := streamCode(r.Err, socketReset)
	return streamEnd{label: known(c), reason: reason, sent: r.BToA, received: r.AToB}
}

// A sided stream is side a of a copy, whose side b is nc.
type sided struct {
	*tunnel.Stream
	nc          *net.TCPConn
	socketReset code.Code
}

// Abort tells the stream's peer what ended the copy.
func (s *sided) Abort(err error) {
	c, _ := streamCode(err, s.socketReset)
	_ = s.Reset(c) // it is over either way
}

// Close is called after a clean end only, and before the socket is closed,
// which is a clean close from here on.
func (s *sided) Close() error {
	return errors.Join(s.nc.SetLinger(-1), s.Stream.Close())
}

// openEnd says why a stream could not be opened.
func openEnd(ctx context.Context, err error) streamEnd {
	var (
		none *noChannelError
		lost *tunnel.LossError
	)
	switch {
	case errors.Is(context.Cause(ctx), errShutdown):
		return streamEnd{label: code.Shutdown.String(), reason: errShutdown.Error()}
	case errors.As(err, &none) && none.last == nil:
		return streamEnd{label: code.Timeout.String(), reason: err.Error()}
	case errors.As(err, &none):
		return streamEnd{label: label(none.last, code.Unreachable), reason: err.Error()}
	case errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &lost):
		return streamEnd{label: code.Timeout.String(), reason: err.Error()}
	}
	return streamEnd{label: known(tunnel.CodeOf(err)), reason: err.Error()}
}

// logEnd writes the one line about a stream's end: a clean one is for those
// who look closely, one that either end of the connection made is usual, and
// the rest is worth a look.
func (b *base) logEnd(e streamEnd, took time.Duration, name *streamName) {
	level, message := zapcore.WarnLevel, "stream refused"
	switch e.label {
	case code.OK.String():
		level, message = zapcore.DebugLevel, "stream closed"
	case code.ClientReset.String(), code.TargetReset.String(), code.Aborted.String(), code.Shutdown.String(), code.ChannelLost.String():
		level, message = zapcore.InfoLevel, "stream ended early"
	}
	if e.hushed {
		level = zapcore.DebugLevel
	}
	ce := b.log.Check(level, message)
	if ce == nil {
		return
	}
	fields := []zap.Field{
		zap.String("service", name.service), zap.Stringer("peer", name.peer), zap.String("client", name.client), zap.String("code", e.label),
	}
	if e.reason != "" {
		fields = append(fields, zap.String("reason", e.reason))
	}
	ce.Write(append(fields, zap.Int64("sent", e.sent), zap.Int64("received", e.received), zap.Duration("duration", took))...)
}
