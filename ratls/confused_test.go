package ratls_test

import (
	"crypto/tls"
	"io"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/session"
	"github.com/jurat-tls/jurat/test/pebble"
)

// Whatever protocols a client offers together, in whatever order, and however it spells the name: what it is shown is what the first rule says
// that is met, and nobody who is shown a public certificate or a challenge is in another tier.
func TestConfusedClients(t *testing.T) {
	certificate := func() tls.Certificate {
		cert, err := tls.X509KeyPair(pebble.SelfSigned(t, "shop.example"))
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	public := names{known: certificate(), challenge: certificate()}
	id := identity(t, "shop.example")
	addr, seen := acceptor(t, ratls.NewPublicAcceptor(id, public, "h2", "http/1.1"))
	evidence, known, challenge := string(id.Leaf().Certificate.Raw), string(public.known.Certificate[0]), string(public.challenge.Certificate[0])

	all := []string{session.ALPN, ratls.KeyALPN, "acme-tls/1", "http/1.1"}
	for set := 1; set < 1<<len(all); set++ {
		var offer []string
		for i, p := range all {
			if set&(1<<i) != 0 {
				offer = append(offer, p)
			}
		}
		permute(offer, func(protos []string) {
			for _, max := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				want := known // "" for none
				switch {
				case slices.Contains(protos, session.ALPN):
					want = "" // of a key alone, and of no public certificate
				case slices.Contains(protos, ratls.KeyALPN):
					if want = evidence; max == tls.VersionTLS12 {
						want = ""
					}
				case len(protos) == 1 && protos[0] == "acme-tls/1":
					want = challenge
				}
				var leaf, proto string
				conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "shop.example", NextProtos: protos, MaxVersion: max, InsecureSkipVerify: true})
				if err == nil {
					leaf, proto = string(conn.ConnectionState().PeerCertificates[0].Raw), conn.ConnectionState().NegotiatedProtocol
					_ = conn.Close()
				}
				<-seen
				switch {
				case want == "" && (leaf == known || leaf == challenge || leaf != "" && proto != session.ALPN):
					t.Errorf("%q up to %x: %q", protos, max, proto)
				case want != "" && leaf != want, proto == "acme-tls/1" && leaf != challenge, proto == session.ALPN && want != "":
					t.Errorf("%q up to %x: %v, %q", protos, max, err, proto)
				}
			}
		})
	}
}

// permute calls f with every order of list.
func permute(list []string, f func([]string)) {
	var from func(int)
	from = func(at int) {
		if at == len(list) {
			f(slices.Clone(list))
			return
		}
		for i := at; i < len(list); i++ {
			list[at], list[i] = list[i], list[at]
			from(at + 1)
			list[at], list[i] = list[i], list[at]
		}
	}
	from(0)
}

// No connection goes on with what another one has agreed on: under no certificate, in no version.
func TestPublicIsNotResumed(t *testing.T) {
	cert, err := tls.X509KeyPair(pebble.SelfSigned(t, "shop.example"))
	if err != nil {
		t.Fatal(err)
	}
	addr, seen := acceptor(t, ratls.NewPublicAcceptor(identity(t, "shop.example"), names{known: cert, challenge: cert}, "h2", "http/1.1"))
	for _, max := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cache := &tickets{ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		for _, protos := range [][]string{{"http/1.1"}, {"http/1.1"}, {ratls.KeyALPN}, {"acme-tls/1"}} {
			conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "shop.example", NextProtos: protos, MaxVersion: max, ClientSessionCache: cache, InsecureSkipVerify: true})
			if err == nil {
				_ = conn.CloseWrite()
				_, _ = io.ReadAll(conn)
				if conn.ConnectionState().DidResume {
					t.Errorf("%q up to %x is resumed", protos, max)
				}
				_ = conn.Close()
			} else if max == tls.VersionTLS13 || protos[0] != ratls.KeyALPN {
				t.Error(err)
			}
			<-seen
		}
		if cache.put != 0 {
			t.Errorf("%d tickets up to %x", cache.put, max)
		}
	}
}

// tickets counts what is there to resume with.
type tickets struct {
	tls.ClientSessionCache
	put int
}

func (c *tickets) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		c.put++
	}
	c.ClientSessionCache.Put(key, s)
}
