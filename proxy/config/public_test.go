package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/config"
)

func TestPublic(t *testing.T) {
	good := func() *config.Listener {
		return &config.Listener{Address: ":443", Serving: config.Serving{To: "127.0.0.1:1", Public: &config.Public{
			Names: []string{"shop.example"}, ACME: &config.ACME{Directory: "https://ca.example/dir", AgreeTerms: true},
		}}}
	}
	files := func(l *config.Listener) { l.Public = &config.Public{Cert: "c.pem", UnsafeKeyFile: "k.pem"} }
	dns := func(l *config.Listener) {
		l.Public.ACME.DNS = &config.DNSUpdate{Server: "ns.example:53", Zone: "example.", KeyName: "k.", SecretFile: "f", Algorithm: "hmac-sha512"}
	}
	at := func(address string) *config.StorageAt { return &config.StorageAt{Address: address, Require: "p"} }
	for name, test := range map[string]struct {
		change func(*config.Listener)
		want   string // places of what is wrong
	}{
		"acme":  {func(*config.Listener) {}, ""},
		"files": {files, ""},
		"raw":   {func(l *config.Listener) { l.TCP = true }, ""},
		"all": {func(l *config.Listener) {
			dns(l)
			a := l.Public.ACME
			a.Email, a.KeyType, a.HTTP, a.External = "a@b.example", "p384", ":80", &config.ExternalAccount{ID: "a", KeyFile: "b"}
		}, ""},
		"wildcard": {func(l *config.Listener) {
			dns(l)
			l.Public.Names = []string{"*.shop.example"}
			l.Public.ACME.NoALPN = true
		}, ""},
		"wildcard in files":         {func(l *config.Listener) { files(l); l.Public.Names = []string{"*.shop.example"} }, ""},
		"wildcard without dns":      {func(l *config.Listener) { l.Public.Names = []string{"*.shop.example"} }, "names[0]"},
		"clients have to attest":    {func(l *config.Listener) { l.Require = "p" }, ""},
		"plain clients":             {func(l *config.Listener) { l.Plain = true; l.Address = "127.0.0.1:1" }, ""},
		"neither":                   {func(l *config.Listener) { l.Public = &config.Public{Names: []string{"a.example"}} }, ""},
		"both":                      {func(l *config.Listener) { l.Public.Cert, l.Public.UnsafeKeyFile = "a", "b" }, ""},
		"no key":                    {func(l *config.Listener) { files(l); l.Public.UnsafeKeyFile = "" }, "unsafe_key_file"},
		"no certificate":            {func(l *config.Listener) { files(l); l.Public.Cert = "" }, "cert"},
		"no names":                  {func(l *config.Listener) { l.Public.Names = nil }, "names"},
		"any name":                  {func(l *config.Listener) { l.Public.Names = []string{"*"} }, "names[0]"},
		"an address":                {func(l *config.Listener) { l.Public.Names = []string{"192.0.2.1"} }, "names[0]"},
		"twice":                     {func(l *config.Listener) { l.Public.Names = []string{"a.example", "A.example"} }, "names[1]"},
		"too many":                  {func(l *config.Listener) { l.Public.Names = make([]string, 101) }, "names"},
		"terms":                     {func(l *config.Listener) { l.Public.ACME.AgreeTerms = false }, "acme.agree_terms"},
		"directory in plain":        {func(l *config.Listener) { l.Public.ACME.Directory = "http://ca.example" }, "acme.directory"},
		"directory with a password": {func(l *config.Listener) { l.Public.ACME.Directory = "https://a:b@ca.example" }, "acme.directory"},
		"key type":                  {func(l *config.Listener) { l.Public.ACME.KeyType = "dsa" }, "acme.key_type"},
		"email":                     {func(l *config.Listener) { l.Public.ACME.Email = "a@b.example,c@d.example" }, "acme.email"},
		"http":                      {func(l *config.Listener) { l.Public.ACME.HTTP = "unix:/x" }, "acme.http"},
		"no challenge":              {func(l *config.Listener) { l.Public.ACME.NoALPN = true }, "acme.no_tls_alpn"},
		"half an account":           {func(l *config.Listener) { l.Public.ACME.External = &config.ExternalAccount{ID: "x"} }, "acme.external_account"},
		"nothing about dns":         {func(l *config.Listener) { l.Public.ACME.DNS = new(config.DNSUpdate) }, "acme.dns.server acme.dns.zone acme.dns.key_name acme.dns.secret_file"},
		"shared": {func(l *config.Listener) {
			l.Public.ACME.Storage, l.Public.ACME.Share = "kept", &config.Share{Address: ":7443", Require: "p"}
		}, ""},
		"kept elsewhere":      {func(l *config.Listener) { l.Public.ACME.StorageAt = at("replica-0.internal:7443") }, ""},
		"shared with anybody": {func(l *config.Listener) { l.Public.ACME.Share = &config.Share{Address: ":7443"} }, "acme.share.require"},
		"shared nowhere":      {func(l *config.Listener) { l.Public.ACME.Share = &config.Share{Require: "p"} }, "acme.share.address"},
		"shared on a socket": {func(l *config.Listener) {
			l.Public.ACME.Share = &config.Share{Address: "unix:/x", Require: "p"}
		}, "acme.share.address"},
		"shared where clients come": {func(l *config.Listener) {
			l.Public.ACME.Share = &config.Share{Address: ":443", Require: "p"}
		}, "acme.share.address"},
		"kept at anybody's": {func(l *config.Listener) {
			l.Public.ACME.StorageAt = &config.StorageAt{Address: "a.example:1"}
		}, "acme.storage_at.require"},
		"kept nowhere":        {func(l *config.Listener) { l.Public.ACME.StorageAt = at(":7443") }, "acme.storage_at.address"},
		"kept without a port": {func(l *config.Listener) { l.Public.ACME.StorageAt = at("a.example") }, "acme.storage_at.address"},
		"kept at a bad name": {func(l *config.Listener) {
			l.Public.ACME.StorageAt = at("a.example:1")
			l.Public.ACME.StorageAt.Name = "*"
		}, "acme.storage_at.name"},
		"kept here and there": {func(l *config.Listener) { l.Public.ACME.StorageAt, l.Public.ACME.Storage = at("a.example:1"), "kept" }, "acme.storage_at"},
		"shared from elsewhere": {func(l *config.Listener) {
			l.Public.ACME.StorageAt, l.Public.ACME.Share = at("a.example:1"), &config.Share{Address: ":7443", Require: "p"}
		}, "acme.storage_at"},
		"algorithm, and a long time": {func(l *config.Listener) { dns(l); l.Public.ACME.DNS.Algorithm, l.Public.ACME.DNS.Settle = "md5", -1 }, "acme.dns.algorithm acme.dns.settle"},
	} {
		l := good()
		test.change(l)
		want := strings.Fields(test.want)
		for i := range want {
			want[i] = "listen[0].public." + want[i]
		}
		if slices.Contains([]string{"clients have to attest", "plain clients", "neither", "both"}, name) {
			want = []string{"listen[0].public"}
		}
		var got []string
		if err := (&config.Config{Listeners: []config.Listener{*l}}).Check(); err != nil {
			for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
				got = append(got, e.(*attest.Error).Subject)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: wrong are %q, want %q", name, got, want)
		}
	}
}

// The connections of a CA are for the chain whose certificates it issues, whatever protocols that is for, and for no other one.
func TestChallengeMatches(t *testing.T) {
	public := &config.Public{Names: []string{"shop.example"}, ACME: &config.ACME{Directory: "https://ca.example/dir", AgreeTerms: true}}
	l := config.Listener{Address: ":443", Chains: []config.Chain{
		{Match: chain.Match{ApplicationProtocols: []string{"h2"}}, Serving: config.Serving{To: "127.0.0.1:1", Public: public}},
		{Match: chain.Match{ApplicationProtocols: []string{"jurat/1"}}, Serving: config.Serving{To: "127.0.0.1:1", Require: "p"}},
	}}
	for _, test := range []struct {
		protocol string
		change   func()
		want     int
	}{
		{"acme-tls/1", func() {}, 0},
		{"jurat/1", func() {}, 1},
		{"acme-tls/1", func() { public.ACME.NoALPN = true }, -1},
		{"acme-tls/1", func() { public.ACME = nil }, -1},
	} {
		test.change()
		table, err := chain.Compile(l.Matches())
		if err != nil {
			t.Fatal(err)
		}
		got, ok := table.Find(chain.Conn{TLS: true, ServerName: "shop.example", Protocols: []string{test.protocol}})
		if !ok {
			got = -1
		}
		if got != test.want {
			t.Errorf("%s is for %d, want %d", test.protocol, got, test.want)
		}
	}
	if got := l.Chains[0].Match.ApplicationProtocols; len(got) != 1 {
		t.Errorf("the configuration has changed: %q", got)
	}
}

// What one place shares is not what another one keeps for itself, and who gets it is said alike everywhere.
func TestSharedAlike(t *testing.T) {
	acme := func(storage string, share *config.Share, at *config.StorageAt) *config.ACME {
		return &config.ACME{Directory: "https://ca.example/dir", AgreeTerms: true, Storage: storage, Share: share, StorageAt: at}
	}
	share := func(address, require string) *config.Share { return &config.Share{Address: address, Require: require} }
	for name, test := range map[string]struct {
		one, other *config.ACME
		want       string
	}{
		"alike":             {acme("kept", share(":7443", "p"), nil), acme("kept", share(":7443", "p"), nil), ""},
		"apart":             {acme("kept", share(":7443", "p"), nil), acme("own", nil, nil), ""},
		"another directory": {acme("kept", share(":7443", "p"), nil), acme("own", share(":7443", "p"), nil), "listen[1].public.acme.share"},
		"another policy":    {acme("", share(":7443", "p"), nil), acme("", share(":7443", "q"), nil), "listen[1].public.acme.share"},
		"one shares":        {acme("kept", share(":7443", "p"), nil), acme("./kept", nil, nil), "listen[1].public.acme.storage"},
		"another holder's policy": {
			acme("", nil, &config.StorageAt{Address: "a.example:1", Require: "p"}), acme("", nil, &config.StorageAt{Address: "a.example:1", Require: "q"}),
			"listen[1].public.acme.storage_at",
		},
	} {
		c := config.Config{Listeners: []config.Listener{
			{Address: ":443", Serving: config.Serving{To: "127.0.0.1:1", Public: &config.Public{Names: []string{"a.example"}, ACME: test.one}}},
			{Address: ":444", Serving: config.Serving{To: "127.0.0.1:1", Public: &config.Public{Names: []string{"b.example"}, ACME: test.other}}},
		}}
		got := ""
		if err := c.Check(); err != nil {
			got = err.(interface{ Unwrap() []error }).Unwrap()[0].(*attest.Error).Subject
		}
		if got != test.want {
			t.Errorf("%s: wrong is %q, want %q", name, got, test.want)
		}
	}
}

// The policies of replicas are measured as all others, and the configuration that is asked stays what it was.
func TestPoliciesOfReplicas(t *testing.T) {
	for _, acme := range []*config.ACME{{Share: &config.Share{Address: ":1", Require: "p.yaml"}}, {StorageAt: &config.StorageAt{Address: "a.example:1", Require: "p.yaml"}}} {
		c := config.Config{Listeners: []config.Listener{{Serving: config.Serving{Public: &config.Public{ACME: acme}}}, {Serving: config.Serving{Public: &config.Public{Cert: "c"}}}}}
		if got := c.Policies(); !slices.Equal(got, []string{"p.yaml"}) {
			t.Errorf("policies %q", got)
		}
		out := c.WithPolicies(func(string) string { return "id" }).Listeners[0].Public.ACME
		if out.Share != nil && (out.Share.Require != "id" || acme.Share.Require != "p.yaml") || out.StorageAt != nil && (out.StorageAt.Require != "id" || acme.StorageAt.Require != "p.yaml") {
			t.Errorf("%+v of %+v", out, acme)
		}
	}
}
