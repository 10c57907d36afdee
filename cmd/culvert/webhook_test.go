package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/culvert-net/culvert/internal/webhook"
)

// listening is what the log says of an address.
var listening = regexp.MustCompile(`answering reviews\s.*"address": "([^"]+)"`)

// The command serves with the certificate that it made, and ends cleanly when it is
// told to.
func TestWebhookCommand(t *testing.T) {
	t.Parallel() // it answers for some seconds when it is to end
	dir := t.TempDir()
	if _, err := webhook.Issue(dir, webhook.Order{Names: []string{"webhook.culvert.svc"}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "webhook.yaml")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:0\ncertificate: tls.crt\nkey: tls.key\nmetrics: 127.0.0.1:0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"webhook", "--config", file}, io.Discard, write)
		write.Close()
	}()
	var log strings.Builder
	address := ""
	lines := bufio.NewScanner(read)
	for address == "" && lines.Scan() {
		log.WriteString(lines.Text() + "\n")
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			address = m[1]
		}
	}
	rest := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(read)
		rest <- string(text)
	}()
	if address == "" {
		t.Fatalf("it does not serve:\n%s", &log)
	}
	roots := x509.NewCertPool()
	if text, err := os.ReadFile(filepath.Join(dir, webhook.AuthorityFile)); err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatalf("no authority: %v", err)
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: "webhook.culvert.svc", MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d\n%s%s", code, &log, <-rest)
	}
}
