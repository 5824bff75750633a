package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Public is a certificate for clients that know nothing of evidence: from a certificate authority by ACME, or from files. Its names are
// told apart from those of the identity by what the client asks for.
type Public struct {
	Names []string `yaml:"names"` // the server names that it is shown for: pay.example, or *.example for all beside it; with cert those in it by default
	ACME  *ACME    `yaml:"acme"`  // the certificate authority that issues it, under a key that is made here

	Cert string `yaml:"cert"` // a file with the certificate and its chain, in PEM, which is read again when it changes
	// A file with its key, in PEM. It was outside of the TEE: whoever has it there can be this server to clients that know nothing of
	// evidence.
	UnsafeKeyFile string `yaml:"unsafe_key_file"`
}

// ACME says who issues certificates.
type ACME struct {
	Directory  string           `yaml:"directory,required"`                     // URL of the authority's directory
	AgreeTerms bool             `yaml:"agree_terms"`                            // the terms of the authority were read and are agreed to; without it there is no account
	Roots      string           `yaml:"roots"`                                  // a file with the roots, in PEM, that the authority's own server is checked by, default the system's
	Email      string           `yaml:"email"`                                  // that the authority may write to
	External   *ExternalAccount `yaml:"external_account"`                       // an account elsewhere that ours is bound to, where the authority demands it
	KeyType    string           `yaml:"key_type,one=p256|p384|rsa2048|rsa4096"` // default p256
	Profile    string           `yaml:"profile"`                                // the authority's word for a kind of certificate, default its own
	NoALPN     bool             `yaml:"no_tls_alpn"`                            // the authority does not reach this listener: tls-alpn-01 is not used
	HTTP       string           `yaml:"http"`                                   // host:port that http-01 is answered at, which is port 80 to the authority; it is open while a challenge is pending only
	DNS        *DNSUpdate       `yaml:"dns"`                                    // where TXT records are put for dns-01
	Storage    string           `yaml:"storage"`                                // a directory for keys, account and certificates, which are sealed there by the TEE, default memory alone

	Share     *Share     `yaml:"share" json:",omitempty"`      // where replicas on other machines use what is kept here, keys too
	StorageAt *StorageAt `yaml:"storage_at" json:",omitempty"` // the replica whose keys, account and certificates are used, in place of storage
}

// Share lets replicas use what is kept here, over connections that are attested at level session in both directions.
type Share struct {
	Address string `yaml:"address,required"` // host:port or systemd:NAME that replicas connect to
	Require string `yaml:"require,required"` // the policy that they have to meet, a file beside this one: whoever does gets private keys
}

// StorageAt is a replica that shares what it keeps, over connections that are attested at level session in both directions.
type StorageAt struct {
	Address string `yaml:"address,required"` // host:port of its share
	Name    string `yaml:"name"`             // what its evidence has to be for, default the host in address
	Require string `yaml:"require,required"` // the policy that it has to meet, a file beside this one: private keys are sent to it
}

// ExternalAccount is an account that was made with the authority by other means.
type ExternalAccount struct {
	ID      string `yaml:"id,required"`       // the authority's word for it
	KeyFile string `yaml:"key_file,required"` // a file with the key that came with it, in base64 without padding
}

// DNSUpdate is a server that takes dynamic updates (RFC 2136), signed by a shared key.
type DNSUpdate struct {
	Server     string        `yaml:"server,required"`                       // host:port of the zone's primary server
	Zone       string        `yaml:"zone,required"`                         // such as example.org
	KeyName    string        `yaml:"key_name,required"`                     // of the shared key
	SecretFile string        `yaml:"secret_file,required"`                  // a file with the shared key, in base64
	Algorithm  string        `yaml:"algorithm,one=hmac-sha256|hmac-sha512"` // default hmac-sha256
	Settle     time.Duration `yaml:"settle"`                                // how long all servers of the zone take to have a record, default no time
}

// maxPublicNames bounds how many certificates one place asks for.
const maxPublicNames = 100

// public checks a public certificate.
func (k *checker) public(at string, s *Serving) {
	p := s.Public
	switch {
	case p == nil:
		return
	case s.Plain || len(s.Passthrough) > 0:
		k.bad(at, "public", "clients with whom TLS is spoken here")
	case s.Require != "":
		k.bad(at, "public beside require", "one of them: clients that know nothing of evidence show none. Other chains of the listener can have the other")
	}
	if len(p.Names) > maxPublicNames {
		k.bad(at+".names", fmt.Sprint(len(p.Names)), fmt.Sprintf("at most %d", maxPublicNames))
		return
	}
	seen := map[string]bool{}
	for i, n := range p.Names {
		at := fmt.Sprintf("%s.names[%d]", at, i)
		key := strings.ToLower(n)
		wild := strings.HasPrefix(n, "*.")
		switch {
		case !isServerName(n) || n == "*":
			k.bad(at, quote(n), "pay.example, or *.example")
		case seen[key]:
			k.bad(at, quote(n), "a name that is not there before")
		case wild && p.ACME != nil && p.ACME.DNS == nil:
			k.bad(at, quote(n), "a name without an asterisk, or acme.dns: authorities want dns-01 for it")
		}
		seen[key] = true
	}
	switch k.one(at, []string{"acme", "cert"}, p.ACME != nil, p.Cert != "" || p.UnsafeKeyFile != "") {
	case "cert":
		if p.Cert == "" {
			k.missing(at+".cert", "the certificate beside its key")
		}
		if p.UnsafeKeyFile == "" {
			k.missing(at+".unsafe_key_file", "the key beside its certificate")
		}
	case "acme":
		if len(p.Names) == 0 {
			k.missing(at+".names", "a name")
		}
		k.acme(at+".acme", p.ACME)
	}
}

func (k *checker) acme(at string, a *ACME) {
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		k.bad(at+".directory", quote(a.Directory), "an https URL")
	}
	if !a.AgreeTerms {
		k.missing(at+".agree_terms", "true, where the terms of the authority are agreed to")
	}
	if a.KeyType != "" {
		k.word(at+".key_type", a.KeyType, "p256", "p384", "rsa2048", "rsa4096")
	}
	if a.Email != "" && (strings.Count(a.Email, "@") != 1 || strings.ContainsAny(a.Email, " ?,<>\r\n")) {
		k.bad(at+".email", quote(a.Email), "an address such as ops@pay.example")
	}
	if a.HTTP != "" {
		if _, port, err := net.SplitHostPort(a.HTTP); err != nil || !isPort(port) {
			k.bad(at+".http", quote(a.HTTP), "host:port")
		}
	}
	if a.NoALPN && a.HTTP == "" && a.DNS == nil {
		k.bad(at+".no_tls_alpn", "true", "http or dns beside it: the authority has to find out that the names are ours")
	}
	if e := a.External; e != nil {
		if e.ID == "" || e.KeyFile == "" {
			k.missing(at+".external_account", "id and key_file")
		}
	}
	if s := a.Share; s != nil {
		if s.Address == "" {
			k.missing(at+".share.address", "an address to listen on")
		} else if err := CheckAddress(s.Address); err != nil || strings.HasPrefix(s.Address, "unix:") {
			k.bad(at+".share.address", quote(s.Address), "host:port or systemd:NAME")
		}
		if s.Require == "" {
			k.missing(at+".share.require", "the policy that replicas have to meet")
		}
	}
	if s := a.StorageAt; s != nil {
		if a.Storage != "" || a.Share != nil {
			k.bad(at+".storage_at", quote(s.Address)+" beside storage or share", "one of them: this replica keeps nothing, or what it keeps itself")
		}
		if host, port, err := net.SplitHostPort(s.Address); err != nil || host == "" || !isPort(port) {
			k.bad(at+".storage_at.address", quote(s.Address), "host:port")
		}
		if s.Name != "" && !isName(s.Name) {
			k.bad(at+".storage_at.name", quote(s.Name), "a DNS name or an IP address")
		}
		if s.Require == "" {
			k.missing(at+".storage_at.require", "the policy that the holder has to meet")
		}
	}
	d := a.DNS
	if d == nil {
		return
	}
	if _, port, err := net.SplitHostPort(d.Server); err != nil || !isPort(port) {
		k.bad(at+".dns.server", quote(d.Server), "host:port")
	}
	if !isDNS(strings.TrimSuffix(d.Zone, ".")) {
		k.bad(at+".dns.zone", quote(d.Zone), "a zone, such as example.org")
	}
	if !isDNS(strings.TrimSuffix(d.KeyName, ".")) {
		k.bad(at+".dns.key_name", quote(d.KeyName), "the name of a key")
	}
	if d.SecretFile == "" {
		k.missing(at+".dns.secret_file", "a file with the shared key")
	}
	if d.Algorithm != "" {
		k.word(at+".dns.algorithm", d.Algorithm, "hmac-sha256", "hmac-sha512")
	}
	k.notNegative(at+".dns.settle", d.Settle)
}

// shared checks that it is clear who gets what: one address is that of one storage and one policy, and what is in a directory is shared
// by all who name it or by none.
func (k *checker) shared(c *Config) {
	at := map[string]*ACME{} // by share.address and storage_at.address
	dirs := map[string]*ACME{}
	taken := map[string]bool{}
	for i := range c.Listeners {
		taken[c.Listeners[i].Address] = true
	}
	one := func(known map[string]*ACME, key, place string, a *ACME) {
		b := known[key]
		if b == nil {
			known[key] = a
		} else if a.Storage != b.Storage || !reflect.DeepEqual(a.Share, b.Share) || !reflect.DeepEqual(a.StorageAt, b.StorageAt) {
			k.bad(place, quote(key), "the same storage, share and storage_at wherever it is named")
		}
	}
	for i := range c.Listeners {
		for in, s := range c.Listeners[i].Servings() {
			if s.Public == nil || s.Public.ACME == nil {
				continue
			}
			a := s.Public.ACME
			place := strings.ReplaceAll(fmt.Sprintf("listen[%d].%s.public.acme", i, in), "..", ".")
			if a.Share != nil {
				one(at, "share "+a.Share.Address, place+".share", a)
				if taken[a.Share.Address] {
					k.bad(place+".share.address", quote(a.Share.Address), "an address that no listener has")
				}
			}
			if a.StorageAt != nil {
				one(at, a.StorageAt.Address, place+".storage_at", a)
			}
			if a.Storage != "" {
				one(dirs, filepath.Clean(a.Storage), place+".storage", a)
			}
		}
	}
}

// Lower answers the names in lower case, in their order.
func (p *Public) Lower() []string {
	names := slices.Clone(p.Names)
	for i, n := range names {
		names[i] = strings.ToLower(n)
	}
	return names
}
