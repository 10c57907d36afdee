package admin

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/culvert-net/culvert/internal/authority"
	"github.com/culvert-net/culvert/pkg/credential"
	"github.com/culvert-net/culvert/pkg/identity"
)

// maxBody bounds a request's body, in bytes: 16,000 revocations.
const maxBody = 1 << 20

// A Service is what the handler makes reachable.
type Service interface {
	authority.Operator
	Backup(ctx context.Context, w io.Writer) error
}

// Handler serves s below [Prefix], over TLS with the access's key alone, to those
// that show its token. The caller bounds times and conns, and refuses requests of
// other hosts and origins.
func Handler(s Service, a *Access) http.Handler {
	h := handler{s}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Prefix+"tickets", taking(h.createTicket))
	mux.HandleFunc("GET "+Prefix+"tickets", asking(h.tickets))
	mux.HandleFunc("DELETE "+Prefix+"tickets/{id}", asking(h.revokeTicket))
	mux.HandleFunc("POST "+Prefix+"revocations", taking(h.revoke))
	mux.HandleFunc("GET "+Prefix+"members", asking(h.members))
	mux.HandleFunc("GET "+Prefix+"backup", h.backup)
	return authorized(mux, a.token)
}

// authorized lets those through that show the token, which no page of another
// site can: a browser asks first whether it may send such a header, and hears no.
// What comes in plain is refused before that: the token would be out, and the
// answer.
func authorized(next http.Handler, token credential.Secret) http.Handler {
	want := append([]byte("Bearer "), token.Reveal()...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.TLS == nil:
			answer(w, http.StatusUpgradeRequired, wireError{"the authority answers over TLS alone, with the certificate in the file beside the store: use the command culvert"})
			return
		case token.Len() == 0 || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1:
			answer(w, http.StatusUnauthorized, wireError{"the token of the authority's admin server is missing or wrong: run the command as the user that can read the file beside the store"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

type handler struct{ s Service }

// asking returns what serves requests without a body: do returns what is answered.
func asking(do func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := do(r)
		reply(w, out, err)
	}
}

// taking is asking for requests with a body, which do is given.
func taking[In any](do func(ctx context.Context, in *In) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		in := new(In)
		if !read(w, r, in) {
			return
		}
		out, err := do(r.Context(), in)
		reply(w, out, err)
	}
}

func (h handler) createTicket(ctx context.Context, in *wireTicketRequest) (any, error) {
	t, info, err := h.s.CreateTicket(ctx, authority.TicketRequest{
		Attributes: in.Attributes, Uses: in.Uses, ExpiresIn: time.Duration(in.ExpiresIn * float64(time.Second)),
	})
	if err != nil {
		return nil, err
	}
	text, err := t.Encode()
	return wireNewTicket{text, ticketToWire(info)}, err
}

func (h handler) tickets(r *http.Request) (any, error) {
	list, err := h.s.Tickets(r.Context())
	out := []wireTicket{}
	for _, t := range list {
		out = append(out, ticketToWire(t))
	}
	return out, err
}

func (h handler) revokeTicket(r *http.Request) (any, error) {
	id, err := credential.ParseTicketID(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return struct{}{}, h.s.RevokeTicket(r.Context(), id)
}

func (h handler) revoke(ctx context.Context, in *wireRevocation) (any, error) {
	serials, err := parseSerials(in.Serials)
	if err != nil {
		return nil, err
	}
	out, err := h.s.Revoke(ctx, authority.Revocation{Identifiers: in.Identifiers, Serials: serials, Reason: in.Reason, Own: in.Own})
	return wireRevoked(out), err
}

func (h handler) members(r *http.Request) (any, error) {
	var after identity.Identifier
	var most int
	var err error
	if text := r.URL.Query().Get("after"); text != "" {
		err = after.UnmarshalText([]byte(text))
	}
	if text := r.URL.Query().Get("most"); text != "" && err == nil {
		most, err = strconv.Atoi(text)
	}
	if err != nil {
		return nil, err
	}
	list, err := h.s.Members(r.Context(), after, most)
	out := []wireMember{}
	for _, m := range list {
		out = append(out, memberToWire(m))
	}
	return out, err
}

// backup sends the store. An end without the last chunk says that it is not whole.
func (h handler) backup(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := h.s.Backup(r.Context(), newSteadyWriter(w)); err != nil {
		panic(http.ErrAbortHandler) // the client has the beginning already
	}
}

// read reads a body, or answers why it cannot.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	// A form of another site could be sent with other types.
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		answer(w, http.StatusUnsupportedMediaType, wireError{"want application/json"})
		return false
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return true
		}
		err = errors.New("more than one value")
	}
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		answer(w, http.StatusRequestEntityTooLarge, wireError{fmt.Sprintf("more than %d bytes: ask in several requests", maxBody)})
		return false
	}
	answer(w, http.StatusBadRequest, wireError{"reading the request: " + err.Error()})
	return false
}

// reply answers with what was asked for, or with why it cannot be had.
func reply(w http.ResponseWriter, out any, err error) {
	switch {
	case err == nil:
		answer(w, http.StatusOK, out)
	case errors.Is(err, authority.ErrNoTicket):
		answer(w, http.StatusNotFound, wireError{err.Error()})
	default:
		answer(w, http.StatusBadRequest, wireError{err.Error()})
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody to tell
}
