package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

const (
	// maxAnswer bounds an answer in JSON, in bytes.
	maxAnswer = 64 << 20
	// requestTime bounds a request, but for one for a backup, of which steadyTime
	// bounds each piece.
	requestTime = 30 * time.Second
)

var (
	// ErrNotRunning says that nobody listens at the authority's admin address.
	ErrNotRunning = errors.New("the authority does not run")
	// ErrImpostor says that who answers there has not proven to be the authority,
	// and has been told nothing.
	ErrImpostor = errors.New("who answers there is not the authority")
)

// A Client asks an authority that runs in another process. It is an
// [authority.Operator].
type Client struct {
	address string
	access  *Access
	http    *http.Transport
}

// NewClient returns a client of the admin server at address, "host:port" of a
// loopback or "unix:///path". It connects to nothing yet. All that it asks is
// asked, and the token shown, only once the server has proven to be the access's.
func NewClient(address string, a *Access) *Client {
	network, where := "tcp", address
	if path, unix := strings.CutPrefix(address, "unix://"); unix {
		network, where = "unix", path
	}
	return &Client{address, a, &http.Transport{ // no proxy: this is about this machine
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("nothing is asked in plain")
		},
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return a.dial(ctx, network, where)
		},
		ResponseHeaderTimeout: steadyTime, DisableKeepAlives: true, DisableCompression: true,
	}}
}

// CreateTicket is [authority.Authority.CreateTicket].
func (c *Client) CreateTicket(ctx context.Context, r authority.TicketRequest) (credential.Ticket, authority.TicketInfo, error) {
	var out wireNewTicket
	if err := c.call(ctx, http.MethodPost, "tickets", wireTicketRequest{r.Attributes, r.Uses, r.ExpiresIn.Seconds()}, &out); err != nil {
		return credential.Ticket{}, authority.TicketInfo{}, err
	}
	t, err := credential.ParseTicket(out.Ticket)
	info, err2 := out.Info.ticket()
	return t, info, errors.Join(err, err2)
}

// Tickets is [authority.Authority.Tickets].
func (c *Client) Tickets(ctx context.Context) (list []authority.TicketInfo, err error) {
	var out []wireTicket
	if err := c.call(ctx, http.MethodGet, "tickets", nil, &out); err != nil {
		return nil, err
	}
	for _, w := range out {
		t, err := w.ticket()
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// RevokeTicket is [authority.Authority.RevokeTicket].
func (c *Client) RevokeTicket(ctx context.Context, id credential.TicketID) error {
	return c.call(ctx, http.MethodDelete, "tickets/"+id.String(), nil, &struct{}{})
}

// Revoke is [authority.Authority.Revoke].
func (c *Client) Revoke(ctx context.Context, r authority.Revocation) (authority.Revoked, error) {
	in := wireRevocation{Identifiers: r.Identifiers, Reason: r.Reason, Own: r.Own}
	for _, s := range r.Serials {
		in.Serials = append(in.Serials, s.String())
	}
	var out wireRevoked
	err := c.call(ctx, http.MethodPost, "revocations", in, &out)
	return authority.Revoked(out), err
}

// Members is [authority.Authority.Members].
func (c *Client) Members(ctx context.Context, after identity.Identifier, most int) (list []authority.MemberInfo, err error) {
	q := url.Values{"most": {strconv.Itoa(most)}}
	if !after.IsZero() {
		q.Set("after", after.String())
	}
	var out []wireMember
	if err := c.call(ctx, http.MethodGet, "members?"+q.Encode(), nil, &out); err != nil {
		return nil, err
	}
	for _, w := range out {
		m, err := w.member()
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// Backup is [authority.Authority.Backup].
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := c.ask(ctx, http.MethodGet, "backup", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, &steadyReader{resp.Body, cancel}); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("reading the backup from %s: %w", c.address, err)
	}
	return nil
}

// call asks and reads the answer into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	resp, err := c.ask(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("reading the answer of %s: %w: is that the authority of this version?", c.address, err)
	}
	return nil
}

// ask returns an answer that is no refusal.
func (c *Client) ask(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+serverName+Prefix+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+string(c.access.token.Reveal()))
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.RoundTrip(req) // follows no redirect
	switch {
	case err != nil:
		return nil, fmt.Errorf("asking %s: %w", c.address, err)
	case resp.StatusCode == http.StatusOK:
		return resp, nil
	}
	defer resp.Body.Close()
	var refused wireError
	if json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&refused) != nil || refused.Error == "" {
		return nil, fmt.Errorf("%s answered %d: is that the authority?", c.address, resp.StatusCode)
	}
	return nil, errors.New(refused.Error)
}
