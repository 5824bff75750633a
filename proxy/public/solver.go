package public

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/jurat-tls/jurat/attest"
)

// challenges are what a CA waits to be answered. They are in the storage: the CA's connection may come to another process, or to what
// has taken this one's place.
type challenges struct {
	storage *Storage
	issuer  string
}

func newChallenges(storage *Storage, issuer string) *challenges { return &challenges{storage, issuer} }

// challengesPrefix begins the keys of challenges.
const challengesPrefix = "challenges/"

func (c *challenges) key(typ, name string) string {
	return path.Join(challengesPrefix, c.issuer, typ, name)
}

func (c *challenges) add(ctx context.Context, ch acme.Challenge) error {
	raw, err := json.Marshal(ch)
	if err != nil {
		return err
	}
	return c.storage.values.Store(ctx, c.key(ch.Type, ch.Identifier.Value), raw)
}

func (c *challenges) remove(ctx context.Context, ch acme.Challenge) error {
	return c.storage.values.Delete(ctx, c.key(ch.Type, ch.Identifier.Value))
}

// find answers the challenge for a name. What lies in the storage for another one is none.
func (c *challenges) find(ctx context.Context, typ, name string) (ch acme.Challenge, err error) {
	none := &attest.Error{Code: attest.CodeNoPublic, Check: "public.challenge", Subject: name, Got: typ, Want: "a challenge that is pending"}
	raw, err := c.storage.values.Load(ctx, c.key(typ, name))
	if errors.Is(err, fs.ErrNotExist) {
		return ch, none
	}
	if err != nil {
		return ch, err
	}
	if json.Unmarshal(raw, &ch) != nil || ch.Type != typ || ch.Identifier.Value != name {
		return ch, none
	}
	return ch, nil
}

// asked solves a challenge for one of names, which are those of an order. The CA says what a challenge is for, and says it again once it
// was told to look: neither is believed, so that nothing of other names or other authorities is written or removed.
type asked struct {
	acmez.Solver
	names []acme.Identifier
	shown *acme.Challenge // as it was presented; nil while none is
}

func (s *asked) Present(ctx context.Context, ch acme.Challenge) error {
	ours := func(n acme.Identifier) bool { return strings.TrimPrefix(n.Value, "*.") == ch.Identifier.Value }
	if s.shown != nil || !slices.ContainsFunc(s.names, ours) {
		return &attest.Error{Code: attest.CodePublicFailed, Check: "public.challenge", Got: fmt.Sprintf("one for %.100q", ch.Identifier.Value), Want: "one, for what was asked for"}
	}
	s.shown = &ch
	return s.Solver.Present(ctx, ch)
}

// Wait implements acmez.Waiter.
func (s *asked) Wait(ctx context.Context, ch acme.Challenge) error {
	if w, ok := s.Solver.(acmez.Waiter); ok {
		return w.Wait(ctx, ch)
	}
	return nil
}

func (s *asked) CleanUp(ctx context.Context, _ acme.Challenge) error {
	ch := s.shown
	if ch == nil { // Present has refused it
		return nil
	}
	s.shown = nil
	return s.Solver.CleanUp(ctx, *ch)
}

// alpn solves tls-alpn-01 (RFC 8737): whoever accepts connections asks Challenge for the certificate.
type alpn struct{ *challenges }

func (s alpn) Present(ctx context.Context, ch acme.Challenge) error { return s.add(ctx, ch) }

func (s alpn) CleanUp(ctx context.Context, ch acme.Challenge) error {
	return s.remove(context.WithoutCancel(ctx), ch)
}

// certificate is what answers the CA: made for one challenge, and of no use for anything else.
func (c *challenges) certificate(ctx context.Context, name string) (*tls.Certificate, error) {
	ch, err := c.find(ctx, acme.ChallengeTypeTLSALPN01, name)
	if err != nil {
		return nil, err
	}
	return acmez.TLSALPN01ChallengeCert(ch)
}

// web solves http-01 (RFC 8555 section 8.3), at an address that is open for as long as a challenge is pending.
type web struct {
	*challenges
	address string
	listen  func(address string) (net.Listener, error)

	mu      sync.Mutex
	pending map[string]bool // by key: CleanUp is called for what Present has refused, too
	server  *http.Server
	served  chan struct{}
}

func (s *web) Present(ctx context.Context, ch acme.Challenge) error {
	if err := s.add(ctx, ch); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		s.pending[s.key(ch.Type, ch.Identifier.Value)] = true
		return nil
	}
	ln, err := s.listen(s.address)
	if err != nil {
		return err
	}
	s.pending = map[string]bool{s.key(ch.Type, ch.Identifier.Value): true}
	server, served := &http.Server{
		Handler: s, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10,
	}, make(chan struct{})
	server.SetKeepAlivesEnabled(false)
	s.server, s.served = server, served
	go func() {
		defer close(served)
		_ = server.Serve(ln)
	}()
	return nil
}

func (s *web) CleanUp(ctx context.Context, ch acme.Challenge) error {
	err := s.remove(context.WithoutCancel(ctx), ch)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, s.key(ch.Type, ch.Identifier.Value))
	if len(s.pending) > 0 || s.server == nil { // which is not there where Present has failed
		return err
	}
	_ = s.server.Close()
	<-s.served
	s.server = nil
	return err
}

// ServeHTTP answers the CA, and nobody else.
func (s *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ch, err := s.find(r.Context(), acme.ChallengeTypeHTTP01, strings.ToLower(strings.Trim(host, "[]")))
	if err != nil || r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL.Path != ch.HTTP01ResourcePath() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte(ch.KeyAuthorization))
}
