package app

import (
	"strconv"
	"time"
)

// TotalsStatus are the numbers of all streams since the process has started. They
// move while streams run.
type TotalsStatus struct {
	StreamsActive  int64 `json:"streams_active"`
	StreamsOpened  int64 `json:"streams_opened"`
	BytesToService int64 `json:"bytes_to_service"`
	BytesToClient  int64 `json:"bytes_to_client"`
}

func (m *streamMetrics) totals(s streamSums) TotalsStatus {
	t := TotalsStatus{StreamsActive: s.active(), StreamsOpened: s.opened}
	t.BytesToService, t.BytesToClient = m.directed(s)
	return t
}

// carried returns the numbers of a service.
func (m *streamMetrics) carried(s streamSums) CarriedStatus {
	c := CarriedStatus{StreamsOpened: s.opened}
	c.BytesToService, c.BytesToClient = m.directed(s)
	return c
}

// A StreamStatus is a stream that lives.
type StreamStatus struct {
	ID             string    `json:"id"` // no other stream of the process has or had it
	Service        string    `json:"service"`
	Peer           string    `json:"peer"` // "" while the inlet looks for one
	PeerName       string    `json:"peer_name,omitempty"`
	Client         string    `json:"client"`             // its address; at an outlet the inlet's claim
	Channel        string    `json:"channel"`            // "" while the inlet waits for one
	AuditID        string    `json:"audit_id,omitempty"` // as both ends and their audit logs call it; "" without a channel
	Since          time.Time `json:"since"`
	BytesToService int64     `json:"bytes_to_service"`
	BytesToClient  int64     `json:"bytes_to_client"`
	Active         time.Time `json:"active"` // when the last byte came or went
}

// StreamsStatus are the streams that live, the newest first, and how many more there
// are.
type StreamsStatus struct {
	Streams []StreamStatus `json:"streams"`
	LeftOff int64          `json:"streams_left_off"`
}

// newest returns the newest streams of active ones, at most so many.
func (m *streamMetrics) newest(most int, active int64) StreamsStatus {
	list := m.table.newest(most)
	st := StreamsStatus{Streams: make([]StreamStatus, 0, len(list)), LeftOff: max(0, active-int64(len(list)))}
	for i := range list {
		s := &list[i]
		v := StreamStatus{ID: strconv.FormatUint(s.number, 10), Service: s.service, PeerName: s.peerName, Client: s.client, Since: s.since, Active: s.Active}
		if !s.peer.IsZero() {
			v.Peer = s.peer.String()
		}
		if s.carried {
			v.Channel, v.AuditID = s.channel.String(), streamID(s.channel, s.id)
		}
		v.BytesToService, v.BytesToClient = m.directed(streamSums{sent: s.Sent, received: s.Received})
		st.Streams = append(st.Streams, v)
	}
	return st
}

// JoinsStatus are the numbers of all joins since the relay has started. They move
// while joins last.
type JoinsStatus struct {
	JoinsActive   int64 `json:"joins_active"`
	JoinsOpened   int64 `json:"joins_opened"`
	BytesToTarget int64 `json:"bytes_to_target"`
	BytesToCaller int64 `json:"bytes_to_caller"`
}
