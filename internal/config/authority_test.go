package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writeAuthority(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "authority.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

const anID = "mzxw6ytboi4dsmzrga2dcmrzgqydcnzygqzdgmjshezdembugqya"

func TestLoadAuthority(t *testing.T) {
	file := writeAuthority(t, `identity: authority.key
store: authority.db
relays: ["tcp://relay-a:4000/`+anID+`"]
credential_lifetime: 30m
list_lifetime: 2h
forget_members_after: 48h
renew_without_token: true
kubernetes: {issuer: "https://kubernetes.default.svc", audience: culvert}
`)
	fs := Flags(KindAuthority)
	if err := fs.Parse([]string{"--config", file, "--credential-lifetime", "10m"}); err != nil {
		t.Fatal(err)
	}
	c, err := LoadAuthority(Source{Flags: fs, Environ: []string{"CULVERT_LIST_LIFETIME=3h"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Store != filepath.Join(filepath.Dir(file), "authority.db") || c.CredentialLifetime != 10*time.Minute || c.ListLifetime != 3*time.Hour || c.ForgetMembersAfter != 48*time.Hour ||
		!c.RenewWithoutToken || c.Kubernetes == nil || c.Grace != DefaultGrace {
		t.Errorf("%+v", c)
	}
	if len(c.Routes) != 1 || c.Routes[0].String() != c.Relays[0].String() {
		t.Errorf("routes %v, want those of the relays", c.Routes)
	}
	r, err := Check(file, "", nil)
	if err != nil || r.Kind != KindAuthority {
		t.Errorf("%+v, %v: want an authority's file", r, err)
	}
}

func TestAuthorityFaults(t *testing.T) {
	many := "relays:\n"
	for _, host := range strings.Fields("a b c d e f g h i") {
		many += "  - tcp://" + host + ":1/" + anID + "\n"
	}
	for _, tt := range []struct{ text, want string }{
		{"", "store: missing: name the file of members"},
		{"store: a.db\n", "relays: missing: say where members can reach the authority"},
		{"store: a.db\nrelays: []\n", "relays: is empty: nothing could reach the authority"},
		{"store: a.db\nlisten: [127.0.0.1:1]\n", "routes: missing: say how members reach the authority"},
		{"store: a.db\n" + many, "relays: has 9 routes, and a ticket holds 8"},
		{"store: a.db\nlisten: [127.0.0.1:1]\nroutes: [tcp://a:1]\n", "routes[0]: "},
		{"store: a.db\ncredential_lifetime: 1500ms\n", "credential_lifetime: 1500ms is out of range: want 1m to 24h"},
		{"store: a.db\ncredential_lifetime: 90.5s\n", "credential_lifetime: 1m30.5s is not a whole number of seconds"},
		{"store: a.db\nlist_lifetime: 1s\n", "list_lifetime: 1s is out of range"},
		{"store: a.db\nkubernetes: {issuer: x}\n", "kubernetes.audience: missing"},
		{"store: a.db\nservices: []\n", "services: unknown key (it is a key of the commands inlet and outlet)"},
		{"store: a.db\nconnect: []\n", "connect: unknown key (it is a key of the command relay)"},
		{"databse: a.db\n", "databse: unknown key"},
	} {
		file := writeAuthority(t, "identity: a.key\n"+tt.text)
		_, err := Check(file, KindAuthority, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
	for other, text := range map[Kind]string{
		KindRelay: "listen: [127.0.0.1:1]\nconnect: []\nlist_lifetime: 1h\n", KindOutlet: "relays: []\nservices: []\nstore: x\n",
	} {
		_, err := Check(writeAuthority(t, "identity: a.key\n"+text), other, nil)
		if err == nil || !strings.Contains(err.Error(), "it is a key of the command culvert authority") {
			t.Errorf("%s: %v", other, err)
		}
	}
}
