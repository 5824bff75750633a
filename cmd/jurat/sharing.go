package main

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/public"
	"github.com/jurat-tls/jurat/proxy/public/share"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls"
)

// shareSocket begins the names that sockets for replicas are handed over by.
const shareSocket = "share "

// The places where replicas are appraised that use what is kept here, and the one whose storage is used.
func atShare(s *config.Share) string      { return "share " + s.Address }
func atHolder(s *config.StorageAt) string { return "storage at " + s.Address }

// replicas adds the places where replicas are appraised.
func (c *serveConfig) replicas(all map[string][]string) {
	for _, p := range c.publics() {
		if p.ACME == nil {
			continue
		}
		if s := p.ACME.Share; s != nil {
			all[atShare(s)] = []string{s.Require}
		}
		if s := p.ACME.StorageAt; s != nil {
			all[atHolder(s)] = []string{s.Require}
		}
	}
}

// holder is another replica whose storage is used.
type holder struct {
	client  *share.Client
	storage *public.Storage
	dial    atomic.Pointer[proxy.DialEndpoint] // of the generation that there is
	known   chan struct{}                      // closed once there is one, and its policies are in force
	once    sync.Once
}

func newHolder(address string, log *slog.Logger) *holder {
	h := &holder{known: make(chan struct{})}
	h.client = share.NewClient(func(ctx context.Context) (share.Conn, error) {
		select {
		case <-h.known:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return (*h.dial.Load())(ctx, upstream.Identity{Address: address})
	}, log.With("holder", address))
	h.storage = public.NewRemote(h.client)
	return h
}

// use has connections made by the identity of a generation from now on.
func (h *holder) use(g *generation, s *config.StorageAt) error {
	dial, err := g.dialTo(&config.Attested{Require: s.Require, Name: s.Name}, atHolder(s), atHolder(s))
	if err != nil {
		return err
	}
	h.dial.Store(&dial)
	h.once.Do(func() { close(h.known) })
	h.client.Renew()
	return nil
}

// sharing serves what is kept of public certificates to other replicas.
type sharing struct {
	operation *operation

	mu     sync.Mutex
	served map[string]*served // by addresses
}

// served is one storage that is.
type served struct {
	socket    net.Listener
	server    *share.Server
	storage   *public.Storage
	handshake atomic.Pointer[proxy.Handshake] // of the generation that there is
	known     chan struct{}                   // closed once there is one, and its policies are in force
	once      sync.Once
}

// shares are what a generation serves, by addresses.
func (g *generation) shares() map[string]*config.ACME {
	all := map[string]*config.ACME{}
	for _, p := range g.publics() {
		if p.ACME != nil && p.ACME.Share != nil {
			all[p.ACME.Share.Address] = p.ACME
		}
	}
	return all
}

// open opens the addresses that a generation is to serve at and the one before has not. The answer closes them again.
func (s *sharing) open(g *generation) (undo func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var opened []string
	undo = func() { s.shut(opened) }
	for address, a := range g.shares() {
		storage, err := g.shared.vault.storage(g, a)
		if err == nil && s.served[address] != nil && s.served[address].storage != storage {
			err = &attest.Error{
				Code: attest.CodeConfigValue, Check: "config", Subject: atShare(a.Share), Got: "another storage than at the start", Want: "the same as long as the process runs",
				Hint: "restart, or take the change back",
			}
		}
		if err == nil && s.served[address] == nil {
			if err = s.begin(g, a, storage); err == nil {
				opened = append(opened, address)
			}
		}
		if err != nil {
			s.close(opened)
			return nil, err
		}
	}
	return undo, nil
}

// begin serves at an address. Until the policies are in force everybody waits: those from before may let in somebody else under the same name.
func (s *sharing) begin(g *generation, a *config.ACME, storage *public.Storage) (err error) {
	v := &served{storage: storage, known: make(chan struct{})}
	if v.socket, err = s.operation.obtain(shareSocket+a.Share.Address, func() (net.Listener, error) { return s.operation.bind(a.Share.Address) }); err != nil {
		return err
	}
	handshake := func(ctx context.Context, raw net.Conn) (share.Conn, error) {
		select {
		case <-v.known:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return (*v.handshake.Load())(ctx, raw)
	}
	v.server = share.NewServer(storage.Values(), handshake, ratls.Origin, g.log.With("share", a.Share.Address))
	v.server.Serve(v.socket)
	s.served[a.Share.Address] = v
	g.log.Info("public certificates are shared", "address", v.socket.Addr().String())
	return nil
}

// use has replicas let in by a generation from now on.
func (v *served) use(g *generation, s *config.Share) error {
	handshake, err := g.handshakeAt(&config.Listener{Name: atShare(s), Address: s.Address, Serving: config.Serving{Require: s.Require, TCP: true}}, atShare(s))
	if err == nil {
		v.handshake.Store(&handshake)
		v.once.Do(func() { close(v.known) })
	}
	return err
}

// use has a generation, whose policies are in force, serve and be served from now on.
func (s *sharing) use(g *generation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	shares := g.shares()
	var gone []string
	for address, v := range s.served {
		if a := shares[address]; a == nil {
			gone = append(gone, address)
		} else if err := v.use(g, a.Share); err != nil {
			return err
		}
	}
	s.close(gone)
	for _, p := range g.publics() {
		if p.ACME == nil || p.ACME.StorageAt == nil {
			continue
		}
		if err := g.shared.vault.away[p.ACME.StorageAt.Address].use(g, p.ACME.StorageAt); err != nil {
			return err
		}
	}
	return nil
}

func (s *sharing) shut(addresses []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(addresses)
}

// close ends what is served at addresses. The caller holds the lock.
func (s *sharing) close(addresses []string) {
	for _, address := range addresses {
		s.served[address].server.Close()
		delete(s.served, address)
	}
}

// end ends all.
func (s *sharing) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for address := range s.served {
		s.close([]string{address})
	}
}

// sockets are those in use, by the names that they are handed over by.
func (s *sharing) sockets() map[string]net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]net.Listener{}
	for address, v := range s.served {
		all[shareSocket+address] = v.socket
	}
	return all
}
