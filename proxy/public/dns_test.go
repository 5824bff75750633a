package public_test

import (
	"encoding/base64"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/public"
	"github.com/jurat-tls/jurat/test/pebble"
)

const tsigName = "jurat."

var (
	tsigSecret = base64.StdEncoding.EncodeToString([]byte("a secret that the two share, of 32 bytes"))
	tsigWrong  = base64.StdEncoding.EncodeToString([]byte("something else"))
)

// zone is a server of example, which takes updates that are signed.
type zone struct {
	mu    sync.Mutex
	texts map[string][]string
	seen  []string // values that were added
	says  string   // of its answers: "bare" ones are not signed, "forged" ones with another secret, and "no" is a refusal
}

func newZone(t testing.TB) (*zone, string) {
	t.Helper()
	z := &zone{texts: map[string][]string{}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := dns.NewServeMux()
	mux.HandleFunc(".", z.serve)
	started, done := make(chan struct{}), make(chan struct{})
	s := &dns.Server{Listener: ln, Handler: mux, TsigSecret: map[string]string{tsigName: tsigSecret}, NotifyStartedFunc: func() { close(started) }, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	go func() { defer close(done); _ = s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = s.Shutdown(); <-done })
	return z, ln.Addr().String()
}

func (z *zone) serve(w dns.ResponseWriter, r *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg).SetReply(r)
	name := dns.CanonicalName(r.Question[0].Name)
	switch {
	case r.Opcode == dns.OpcodeUpdate && (r.IsTsig() == nil || w.TsigStatus() != nil):
		m.Rcode = dns.RcodeRefused
	case r.Opcode == dns.OpcodeUpdate:
		for _, rr := range r.Ns {
			txt := rr.(*dns.TXT)
			name := dns.CanonicalName(txt.Hdr.Name)
			if txt.Hdr.Class == dns.ClassINET {
				z.texts[name] = append(z.texts[name], txt.Txt[0])
				z.seen = append(z.seen, txt.Txt[0])
			} else {
				z.texts[name] = slices.DeleteFunc(z.texts[name], func(v string) bool { return v == txt.Txt[0] })
			}
		}
		if z.says == "bare" {
			break
		}
		m.SetTsig(tsigName, dns.HmacSHA256, 300, int64(r.IsTsig().TimeSigned))
		switch z.says {
		case "no":
			m.Rcode = dns.RcodeServerFailure
		case "forged":
			raw, _, _ := dns.TsigGenerate(m, tsigWrong, r.IsTsig().MAC, false)
			_, _ = w.Write(raw)
			return
		}
	case r.Question[0].Qtype == dns.TypeTXT:
		for _, v := range z.texts[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{v}})
		}
	}
	_ = w.WriteMsg(m)
}

func (z *zone) left() (n int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, v := range z.texts {
		n += len(v)
	}
	return n
}

func TestDNS(t *testing.T) {
	z, addr := newZone(t)
	ca := pebble.Start(t, pebble.Options{DNS: addr})
	a := acme(ca)
	a.ALPN = false
	var err error
	if a.DNS, err = public.NewUpdate(public.Update{Server: addr, Zone: "example", KeyName: "jurat", Secret: tsigSecret}); err != nil {
		t.Fatal(err)
	}
	c, end := start(t, nil, public.NewMemory(), a, "*.shop.example", "shop.example")
	cert := served(t, c, "a.shop.example", nil)
	if !strings.Contains(strings.Join(cert.Leaf.DNSNames, " "), "*.shop.example") {
		t.Fatal(cert.Leaf.DNSNames)
	}
	served(t, c, "shop.example", nil)
	end()
	if z.left() != 0 || len(z.seen) != 2 {
		t.Fatalf("%d left of %d", z.left(), len(z.seen))
	}
}

func TestUpdate(t *testing.T) {
	z, addr := newZone(t)
	good := public.Update{Server: addr, Zone: "Example", KeyName: "Jurat", Secret: tsigSecret}
	update := func(change func(*public.Update)) public.DNS {
		u := good
		change(&u)
		d, err := public.NewUpdate(u)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := update(func(*public.Update) {})
	for _, v := range []string{"one", "two"} {
		if err := d.Add(t.Context(), "_acme-challenge.Shop.example", v); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Remove(t.Context(), "_acme-challenge.shop.example", "one"); err != nil {
		t.Fatal(err)
	}
	if got := z.texts["_acme-challenge.shop.example."]; !slices.Equal(got, []string{"two"}) {
		t.Fatal(got)
	}
	if err := d.Add(t.Context(), "_acme-challenge.shop.test", "x"); attest.CodeOf(err) != attest.CodePublicFailed {
		t.Error(err)
	}
	if err := update(func(u *public.Update) { u.Secret = tsigWrong }).Add(t.Context(), "a.example", "x"); attest.CodeOf(err) != attest.CodePublicFailed {
		t.Error(err)
	}
	for says, want := range map[string]string{"bare": "not signed", "forged": "bad signature", "no": "SERVFAIL"} {
		z.mu.Lock()
		z.says = says
		z.mu.Unlock()
		if err := d.Add(t.Context(), "a.example", "x"); attest.CodeOf(err) != attest.CodePublicFailed || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", says, err)
		}
	}
	if err := update(func(u *public.Update) { u.Server = "127.0.0.1:1" }).Add(t.Context(), "a.example", "x"); attest.CodeOf(err) != attest.CodePublicFailed {
		t.Error(err)
	}
	for name, change := range map[string]func(*public.Update){
		"server": func(u *public.Update) { u.Server = "ns.example" }, "zone": func(u *public.Update) { u.Zone = "" }, "key": func(u *public.Update) { u.KeyName = "" },
		"no zone": func(u *public.Update) { u.Zone = "a..b" }, "no name": func(u *public.Update) { u.KeyName = "a..b" },
		"secret": func(u *public.Update) { u.Secret = "" }, "algorithm": func(u *public.Update) { u.Algorithm = "hmac-md5" },
	} {
		u := good
		change(&u)
		if _, err := public.NewUpdate(u); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%s: %v", name, err)
		}
	}
}
