package watch

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/culvert-net/culvert/pkg/code"
)

// The roles of a process.
const (
	Inlet     = "inlet"
	Outlet    = "outlet"
	Relay     = "relay"
	Authority = "authority"
)

// A Text is a text from a process's answer, a part of which others may have made: a
// peer's name, or the reason that it gives. What could do something to a terminal, or
// look like another line, is replaced when it is read.
type Text string

// UnmarshalText reads a text, which in JSON is a string or a key.
func (t *Text) UnmarshalText(b []byte) error {
	*t = Text(code.Printable(strings.ReplaceAll(string(b), "\n", "; ")))
	return nil
}

// A Status is what /status answers, of all roles together: what a role does not have
// is zero. What is not known here is passed over, so that older and newer processes
// can be watched.
type Status struct {
	Role       Text        `json:"role"`
	Version    Text        `json:"version"`
	Now        time.Time   `json:"now"` // of the answer
	Started    time.Time   `json:"started"`
	Identifier Text        `json:"identifier"`
	Instance   Text        `json:"instance"`
	Credential *Credential `json:"credential"`
	Listen     []Text      `json:"listen"`
	Totals     Totals      `json:"totals"`
	Services   []Service   `json:"services"`
	Channels   []Channel   `json:"channels"`
	// Of an inlet or outlet, newest first.
	Streams        []Stream `json:"streams"`
	StreamsLeftOff int      `json:"streams_left_off"`

	Registrations []Registration `json:"registrations"` // of an outlet, or at a relay
	// Of a relay.
	Draining    bool            `json:"draining"`
	Connections int             `json:"connections"`
	Joins       []Join          `json:"joins"`
	JoinsLeft   int             `json:"joins_left_off"`
	Refusals    map[Text]uint64 `json:"refusals"`
}

// Totals are a process's counts. Of a relay bytes are to the target and to the caller.
type Totals struct {
	StreamsActive int64  `json:"streams_active"`
	StreamsOpened uint64 `json:"streams_opened"`
	ToService     int64  `json:"bytes_to_service"`
	ToClient      int64  `json:"bytes_to_client"`

	JoinsActive int64  `json:"joins_active"`
	JoinsOpened uint64 `json:"joins_opened"`
	ToTarget    int64  `json:"bytes_to_target"`
	ToCaller    int64  `json:"bytes_to_caller"`
}

// A Credential is the process's own.
type Credential struct {
	Authority  Text          `json:"authority"`
	Connected  bool          `json:"connected"`
	Serial     Text          `json:"serial"`
	Attributes map[Text]Text `json:"attributes"`
	Expires    time.Time     `json:"expires"` // zero: there is none yet
	Revoked    Text          `json:"revoked"`
	LastError  Text          `json:"last_error"`
}

// A Service is one that an inlet or an outlet offers.
type Service struct {
	Service    Text      `json:"service"`
	Listen     Text      `json:"listen"` // of an inlet
	Outlet     Text      `json:"outlet"`
	Replicas   *Replicas `json:"replicas"`
	Target     Text      `json:"target"` // of an outlet
	Allow      []Text    `json:"allow"`
	Expression Text      `json:"expression"`

	Streams   int64  `json:"streams"`
	Opened    uint64 `json:"streams_opened"`
	ToService int64  `json:"bytes_to_service"`
	ToClient  int64  `json:"bytes_to_client"`
}

// Replicas are the outlets that a service can be had from.
type Replicas struct {
	Known     int       `json:"known"`
	List      []Replica `json:"list"`
	Routes    []Route   `json:"routes"`
	LastError Text      `json:"last_error"`
}

// A Replica is one of them.
type Replica struct {
	Outlet    Text `json:"outlet"`
	State     Text `json:"state"`
	Draining  bool `json:"draining"`
	Streams   int  `json:"streams"`
	Route     Text `json:"route"`
	LastError Text `json:"last_error"`
}

// A Channel is an inlet's to an outlet, or one that an outlet was opened.
type Channel struct {
	ID        Text      `json:"channel"`
	Outlet    Text      `json:"outlet"` // of an inlet's
	Peer      Text      `json:"peer"`   // of an outlet's
	Name      Text      `json:"name"`
	Service   Text      `json:"service"`
	State     Text      `json:"state"`
	Route     Text      `json:"route"`
	Since     time.Time `json:"since"`
	Path      *Path     `json:"path"`
	Streams   int       `json:"streams"`
	LastError Text      `json:"last_error"`
	Routes    []Route   `json:"routes"`
}

// A Path is what carries a channel.
type Path struct {
	Up      bool      `json:"up"`
	Since   time.Time `json:"since"`
	Error   Text      `json:"error"`
	RTT     float64   `json:"rtt_seconds"`
	Ping    float64   `json:"ping_seconds"`
	Keys    time.Time `json:"keys_since"`
	Changes uint64    `json:"changes"`
}

// A Route is a way to an outlet and how it did last.
type Route struct {
	Route Text `json:"route"`
	State Text `json:"state"`
	Error Text `json:"error"`
}

// A Stream is a connection that is carried.
type Stream struct {
	ID        Text      `json:"id"`
	Service   Text      `json:"service"`
	Peer      Text      `json:"peer"`
	PeerName  Text      `json:"peer_name"`
	Client    Text      `json:"client"`
	Channel   Text      `json:"channel"`
	Since     time.Time `json:"since"`
	Active    time.Time `json:"active"`
	ToService int64     `json:"bytes_to_service"`
	ToClient  int64     `json:"bytes_to_client"`
}

// A Registration is an outlet's at a relay's address, as either of them sees it.
type Registration struct {
	Since    time.Time `json:"since"`
	Draining bool      `json:"draining"`
	Spares   int       `json:"spares"`
	// As the outlet has it.
	Route      Text `json:"route"`
	Address    Text `json:"address"`
	Registered bool `json:"registered"`
	LastError  Text `json:"last_error"`
	// As the relay has it.
	Identifier Text `json:"identifier"`
	Instance   Text `json:"instance"`
	Remote     Text `json:"remote"`
	Waiting    int  `json:"waiting"`
}

// A Join is a caller that a relay has joined to an outlet or another relay.
type Join struct {
	Request        Text      `json:"request"`
	Caller         Text      `json:"caller"`
	CallerInstance Text      `json:"caller_instance"`
	Target         Text      `json:"target"`
	TargetInstance Text      `json:"target_instance"`
	Since          time.Time `json:"since"`
	ToTarget       int64     `json:"bytes_to_target"`
	ToCaller       int64     `json:"bytes_to_caller"`
}

// Parse reads what /status answers.
func Parse(b []byte) (*Status, error) {
	var s Status
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("reading the status: %w", err)
	}
	if s.Role == "" {
		s.Role = s.guess()
	}
	if s.Now.IsZero() {
		s.Now = time.Now()
	}
	return &s, nil
}

// guess tells the role of a process that does not say it from what only one role has.
func (s *Status) guess() Text {
	switch {
	case s.Joins != nil:
		return Relay
	case s.Registrations != nil:
		return Outlet
	}
	return Inlet
}

// Section returns one member of a status as it came, such as "channels". An error
// names those that there are.
func Section(raw json.RawMessage, name string) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("reading the status: %w", err)
	}
	if part, ok := all[name]; ok {
		return part, nil
	}
	return nil, &SectionError{Name: name, Known: slices.Sorted(maps.Keys(all))}
}

// A SectionError says that a status has no section of the name.
type SectionError struct {
	Name  string
	Known []string
}

// Error names those that there are.
func (e *SectionError) Error() string {
	known := code.CutReason(code.Printable(strings.Join(e.Known, ", "))) // a process may have made them up
	return fmt.Sprintf("there is no section %q: one of %s", e.Name, known)
}
