package config

import (
	"fmt"
	"slices"
)

// A kindKeys lists the keys that only one kind's file has at the top and in the
// items of services, for telling the kinds apart.
type kindKeys struct {
	kind         Kind
	top, service []string
}

// kinds is never written.
var kinds = []kindKeys{
	{KindInlet, []string{"connect_timeout"}, []string{"listen", "service", "outlet", "routes", "listen_mode"}},
	{KindOutlet, []string{"relays"}, []string{"name", "target", "allow", "tls", "proxy_protocol", "trust_client_address"}},
	{KindRelay, []string{"register", "connect", "extend"}, nil},
	{KindAuthority, []string{"store", "credential_lifetime", "list_lifetime", "forget_members_after", "kubernetes", "renew_without_token"}, nil},
	{KindWebhook, []string{"certificate", "sidecar"}, nil},
}

func kindInfo(kind Kind) kindKeys {
	i := slices.IndexFunc(kinds, func(k kindKeys) bool { return k.kind == kind })
	if i < 0 {
		return kindKeys{kind: kind}
	}
	return kinds[i]
}

// A sign is a key that only one kind's files have.
type sign struct {
	path string
	at   Origin
}

// signs returns the keys in a file that only the kind's files have.
func (k kindKeys) signs(root *value) (found []sign) {
	for _, key := range k.top {
		if e := root.get(key); e != nil {
			found = append(found, sign{key, e.at})
		}
	}
	services := root.get("services")
	if services == nil {
		return found
	}
	for i, item := range services.value.items {
		for _, key := range k.service {
			if e := item.get(key); e != nil {
				found = append(found, sign{fmt.Sprintf("services[%d].%s", i, key), e.at})
			}
		}
		if len(found) > 8 {
			break // that will do
		}
	}
	return found
}

// detect returns the kind whose keys a file has, and the first of them. kind is
// "" if the file has keys of none, or as many of two.
func detect(root *value) (kind Kind, first sign) {
	// An authority registers at relays as an outlet does, and has a store alone.
	if e := root.get("store"); e != nil {
		return KindAuthority, sign{"store", e.at}
	}
	most := 0
	for _, k := range kinds {
		found := k.signs(root)
		switch {
		case len(found) > most:
			most, kind, first = len(found), k.kind, found[0]
		case len(found) == most:
			kind, first = "", sign{}
		}
	}
	return kind, first
}

// wrongKind returns the fault of a file that has another kind's keys and none
// of the wanted one's, or nil.
func wrongKind(root *value, file string, want Kind) *Fault {
	kind, first := detect(root)
	if kind == "" || kind == want || len(kindInfo(want).signs(root)) > 0 {
		return nil
	}
	return &Fault{At: first.at, Key: first.path, Err: fmt.Errorf("this file is for the command %s, not for %s: run \"%s --config %s\"", kind.Command(), want.Command(), kind.Command(), file)}
}
