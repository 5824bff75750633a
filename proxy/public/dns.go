package public

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"

	"github.com/jurat-tls/jurat/attest"
)

// DNS puts TXT records into a zone, and takes them away again, for dns-01 (RFC 8555 section 8.4). Other records of the same name stay. It
// has to honour its context.
type DNS interface {
	Add(ctx context.Context, name, value string) error
	Remove(ctx context.Context, name, value string) error
}

// txt solves dns-01.
type txt struct {
	dns  DNS
	wait time.Duration
}

func (s txt) Present(ctx context.Context, ch acme.Challenge) error {
	return s.dns.Add(ctx, ch.DNS01TXTRecordName(), ch.DNS01KeyAuthorization())
}

// Wait implements acmez.Waiter.
func (s txt) Wait(ctx context.Context, _ acme.Challenge) error {
	timer := time.NewTimer(s.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s txt) CleanUp(ctx context.Context, ch acme.Challenge) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), updateLimit)
	defer cancel()
	return s.dns.Remove(ctx, ch.DNS01TXTRecordName(), ch.DNS01KeyAuthorization())
}

// updateLimit bounds how long a server may take for an update.
const updateLimit = 10 * time.Second

// Update is DNS by dynamic updates (RFC 2136) that a shared key signs (TSIG, RFC 8945), as BIND, Knot, PowerDNS and others take them.
type Update struct {
	Server    string // host:port of the zone's primary server
	Zone      string // such as example.org
	KeyName   string
	Secret    string // base64
	Algorithm string // hmac-sha256 or hmac-sha512; "" is hmac-sha256
}

// NewUpdate checks an Update. The error is an *attest.Error with the code CodeConfigValue.
func NewUpdate(u Update) (DNS, error) {
	bad := func(field, got, want string) (DNS, error) {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "public.dns", Subject: field, Got: fmt.Sprintf("%.100q", got), Want: want}
	}
	if _, _, err := net.SplitHostPort(u.Server); err != nil {
		return bad("server", u.Server, "host:port")
	}
	if _, ok := dns.IsDomainName(u.Zone); !ok {
		return bad("zone", u.Zone, "a zone, such as example.org")
	}
	if _, ok := dns.IsDomainName(u.KeyName); !ok || u.Secret == "" {
		return bad("key_name", u.KeyName, "the name of a key, and its secret")
	}
	switch u.Algorithm {
	case "", "hmac-sha256":
		u.Algorithm = dns.HmacSHA256
	case "hmac-sha512":
		u.Algorithm = dns.HmacSHA512
	default:
		return bad("algorithm", u.Algorithm, "hmac-sha256 or hmac-sha512")
	}
	u.Zone, u.KeyName = dns.CanonicalName(u.Zone), dns.CanonicalName(u.KeyName)
	return &update{u}, nil
}

type update struct{ Update }

// Add implements DNS.
func (u *update) Add(ctx context.Context, name, value string) error {
	return u.change(ctx, name, value, (*dns.Msg).Insert)
}

// Remove implements DNS.
func (u *update) Remove(ctx context.Context, name, value string) error {
	return u.change(ctx, name, value, (*dns.Msg).Remove)
}

func (u *update) change(ctx context.Context, name, value string, how func(*dns.Msg, []dns.RR)) error {
	name = dns.CanonicalName(name)
	failed := func(got string, err error) error {
		return &attest.Error{Code: attest.CodePublicFailed, Check: "public.dns", Subject: strings.TrimSuffix(name, "."), Got: got, Err: err}
	}
	if !dns.IsSubDomain(u.Zone, name) {
		return failed("a name outside of the zone "+u.Zone, nil)
	}
	m := new(dns.Msg).SetUpdate(u.Zone)
	how(m, []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{value}}})
	m.SetTsig(u.KeyName, u.Algorithm, 300, time.Now().Unix())
	client := &dns.Client{Net: "tcp", Timeout: updateLimit, TsigSecret: map[string]string{u.KeyName: u.Secret}}
	answer, _, err := client.ExchangeContext(ctx, m, u.Server)
	switch {
	case err != nil:
		return failed("", err)
	case answer.IsTsig() == nil: // it may be anybody's
		return failed("an answer that is not signed", nil)
	case answer.Rcode != dns.RcodeSuccess:
		return failed(dns.RcodeToString[answer.Rcode], nil)
	}
	return nil
}
