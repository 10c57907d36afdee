package tunnel

// Settled reports whether the peer, too, has ended every stream that this side has ended,
// and there is no other: that it knows how each of them ended, which [Session.Close]
// would take from it. It is for a side that opens streams, and false before Run.
func (s *Session) Settled() bool {
	if !isClosed(s.started) {
		return false
	}
	return s.mux.NumStreams() == 1 // the control stream
}
