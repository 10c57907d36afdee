package target

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"

	"github.com/culvert-net/culvert/internal/sock"
	"github.com/culvert-net/culvert/pkg/code"
)

// TLS says how TLS is spoken with a target, whose certificate is always verified.
type TLS struct {
	CAFile     string // PEM: who may vouch for the target; "": the system's roots
	ServerName string // a DNS name or an IP address; "": the host that is dialled
	CertFile   string // PEM: the certificate that the target is shown, with its chain; "": none
	KeyFile    string // PEM: its key
	MinVersion uint16 // as package tls has it; 0: TLS 1.2
}

// A SettingError says which of the settings a file is at fault in, such as
// tls.ca_file.
type SettingError struct {
	Key string
	Err error
}

// Error names the setting.
func (e *SettingError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *SettingError) Unwrap() error { return e.Err }

// A TLSError says that TLS with a target has failed, and what can be done about it.
type TLSError struct{ Err error }

// Error says what to do.
func (e *TLSError) Error() string {
	// The names in a certificate are of any number and characters.
	text := "TLS with the target: " + code.CutReason(code.Printable(e.Err.Error()))
	if remedy := e.remedy(); remedy != "" {
		text += ": " + remedy
	}
	return text
}

// Unwrap returns what has failed.
func (e *TLSError) Unwrap() error { return e.Err }

func (e *TLSError) remedy() string {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		header   tls.RecordHeaderError
		alert    tls.AlertError
	)
	switch {
	case errors.As(e.Err, &unknown):
		return "name who vouches for its certificate under tls.ca_file of the service"
	case errors.As(e.Err, &hostname):
		return "say which name its certificate has under tls.server_name of the service"
	case errors.As(e.Err, &invalid) && invalid.Reason == x509.Expired:
		return "give the target another certificate, or set this machine's clock"
	case errors.As(e.Err, &header):
		return "does it speak TLS at that port? Where it does not, write target: tcp://HOST:PORT"
	case errors.As(e.Err, &alert), isRemoteAlert(e.Err):
		return "the target's log says why; where it asks for a certificate, name one under tls.cert_file and tls.key_file of the service"
	}
	return ""
}

// isRemoteAlert reports whether the other side has said why it ends (RFC 8446, 6.2).
func isRemoteAlert(err error) bool {
	var oe *net.OpError
	return errors.As(err, &oe) && oe.Op == "remote error"
}

// tlsFiles are the files of a TLS, as they were read last.
type tlsFiles struct {
	cfg  TLS
	host string // host:port that is dialled

	mu   sync.Mutex
	seen map[string]fs.FileInfo // when they were read last, by name
	good *tls.Config            // what they held when they could last be taken
}

// current returns what the files hold now, or, with an error, what they held when they
// could last be taken.
func (s *tlsFiles) current() (*tls.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.changedLocked() {
		return s.good, nil
	}
	err := s.loadLocked()
	return s.good, err
}

// load reads the files.
func (s *tlsFiles) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loadLocked()
}

func (s *tlsFiles) names() []string {
	var names []string
	for _, name := range []string{s.cfg.CAFile, s.cfg.CertFile, s.cfg.KeyFile} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// changedLocked reports whether a file is not the one that was read, or was not there
// then and is.
func (s *tlsFiles) changedLocked() bool {
	for _, name := range s.names() {
		was := s.seen[name]
		is, err := os.Stat(name)
		if (was == nil) != (err != nil) {
			return true
		}
		if was != nil && (!os.SameFile(was, is) || was.Size() != is.Size() || !was.ModTime().Equal(is.ModTime())) {
			return true
		}
	}
	return false
}

// loadLocked reads the files, and leaves what was good where they cannot be taken.
func (s *tlsFiles) loadLocked() error {
	s.seen = map[string]fs.FileInfo{}
	for _, name := range s.names() {
		// Before it is read: what changes meanwhile is seen the next time.
		if info, err := os.Stat(name); err == nil {
			s.seen[name] = info
		}
	}
	host, _, err := net.SplitHostPort(s.host)
	if err != nil {
		return &SettingError{Key: "target", Err: err}
	}
	conf := &tls.Config{ServerName: cmp.Or(s.cfg.ServerName, host), MinVersion: max(s.cfg.MinVersion, tls.VersionTLS12)}
	if s.cfg.CAFile != "" {
		if conf.RootCAs, err = readRoots(s.cfg.CAFile); err != nil {
			return &SettingError{Key: "tls.ca_file", Err: err}
		}
	}
	if s.cfg.CertFile != "" {
		pair, err := readPair(s.cfg.CertFile, s.cfg.KeyFile)
		if err != nil {
			return err
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	s.good = conf
	return nil
}

// maxFile bounds a file of certificates: the roots of a whole system have 300 KB.
const maxFile = 4 << 20

// readFile reads a file of PEM blocks.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file of PEM blocks: want a regular one of at most %d bytes", name, maxFile)
	}
	return os.ReadFile(name)
}

// readRoots reads the certificates of a file.
func readRoots(name string) (*x509.CertPool, error) {
	text, err := readFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate: want PEM blocks that begin with -----BEGIN CERTIFICATE-----", name)
	}
	return pool, nil
}

// readPair reads a certificate and its key, of which an error shows nothing.
func readPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := readFile(certFile)
	if err != nil {
		return tls.Certificate{}, &SettingError{Key: "tls.cert_file", Err: err}
	}
	key, err := readFile(keyFile)
	if err != nil {
		return tls.Certificate{}, &SettingError{Key: "tls.key_file", Err: err}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, &SettingError{Key: "tls.cert_file", Err: fmt.Errorf("%s with the key in %s: %w", certFile, keyFile, err)}
	}
	return pair, nil
}

// secure speaks TLS on c, until ctx ends with the handshake.
func secure(ctx context.Context, c sock.Conn, conf *tls.Config) (sock.Conn, error) {
	under := &carrier{Conn: c, writer: sock.NewWriter(c)}
	s := &secured{tls: tls.Client(under, conf), under: under}
	if err := s.tls.HandshakeContext(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, &TLSError{Err: err}
	}
	under.open = true
	return s, nil
}
