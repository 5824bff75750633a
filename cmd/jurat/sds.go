//go:build !noxds

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/admin"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/pins"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/sds"
)

func checkSecretName(name string) error { return sds.CheckName(name) }

// secrets hands out what an Envoy beside this process takes from it.
type secrets struct {
	operation *operation
	server    *sds.Server
	grpc      *attested.Server
	log       *slog.Logger
	socket    net.Listener
	served    sync.WaitGroup

	mu      sync.Mutex // of what follows, and of each publication, so that the last one is of what there is
	current *generation
	keepers map[string]*pins.Keeper
	told    map[pins.Target]string // what was last said of a target
	ended   bool
}

// hand begins to hand out secrets, where there are to be some, until the function that it answers is called.
func (o *operation) hand(c *serveConfig) (done func(), err error) {
	if c.SDS == nil {
		return func() {}, nil
	}
	s := &secrets{operation: o, log: o.log.With("sds", c.SDS.Address), keepers: map[string]*pins.Keeper{}, told: map[pins.Target]string{}}
	s.server = sds.New(func(r sds.Refusal) {
		s.log.Warn("Envoy refuses a secret", "secrets", r.Names, "reason", r.Reason)
	})
	s.grpc = attested.NewServer(func(context.Context, net.Conn) (attested.Conn, error) {
		return nil, errors.New("there are local clients alone")
	}, s.server.Handlers(), attested.Options{Connections: 256, Streams: 1024, Message: 1 << 20})
	s.socket, err = o.obtain(sdsSocket, func() (net.Listener, error) {
		return admin.Listen(context.Background(), "unix:"+c.file(strings.TrimPrefix(c.SDS.Address, "unix:")), admin.Options{}) // mode 0600
	})
	if err != nil {
		return nil, withSubject(err, "sds.address")
	}
	o.mu.Lock()
	o.secrets = s
	o.mu.Unlock()
	s.use(o.generation())
	s.served.Go(func() {
		if err := s.grpc.ServeLocal(sameUser(s.socket, s.log), "envoy"); err != nil && !errors.Is(err, net.ErrClosed) {
			o.stop(&attest.Error{Code: attest.CodeListen, Check: "listen", Subject: c.SDS.Address, Err: err})
		}
	})
	s.log.Info("secrets for Envoy", "address", s.socket.Addr().String())
	return s.close, nil
}

func (s *secrets) close() {
	s.mu.Lock()
	s.ended = true
	keepers := s.keepers
	s.keepers = nil
	s.mu.Unlock()
	s.grpc.Stop()
	_ = s.socket.Close()
	s.served.Wait()
	for _, k := range keepers {
		k.Close()
	}
}

// listener is the socket; nil where there is none.
func (s *secrets) listener() net.Listener {
	if s == nil {
		return nil
	}
	return s.socket
}

// use hands out what a generation has from now on. Peers that are appraised as they were before are not appraised anew.
func (s *secrets) use(g *generation) {
	if s == nil {
		return
	}
	var gone []*pins.Keeper
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.current = g
	var peers []sdsPeers
	if g.SDS != nil {
		peers = g.SDS.Peers
	}
	for name, k := range s.keepers {
		if !slices.ContainsFunc(peers, func(p sdsPeers) bool { return p.Name == name }) {
			gone = append(gone, k)
			delete(s.keepers, name)
		}
	}
	aims := map[*pins.Keeper]func(){}
	for _, p := range peers {
		k := s.keepers[p.Name]
		if k == nil {
			k = s.keeper(g, p.Name)
			s.keepers[p.Name] = k
		}
		var targets []pins.Target
		for _, t := range p.Targets {
			address, name, _ := t.target() // which was checked
			targets = append(targets, pins.Target{Address: address, Name: name}, pins.Target{Address: address, Name: name, Successor: true})
		}
		aims[k] = func() { k.Aim(targets, p.every()) }
	}
	s.mu.Unlock()
	for _, aim := range aims {
		aim()
	}
	for _, k := range gone {
		k.Close()
	}
	s.publish()
}

// keeper makes the keeper of a list of peers.
func (s *secrets) keeper(g *generation, name string) *pins.Keeper {
	place := g.shared.enforcer.Place(atSDS(name))
	party := ratls.NewEnforcedParty(place, g.app.now).ForPin()
	appraise := func(ctx context.Context, t pins.Target) (*attest.Result, ratls.Presented, error) {
		var protocols []string
		if t.Successor {
			protocols = []string{"h2", "http/1.1"}
		}
		connector := ratls.NewConnector(party, protocols...)
		s.mu.Lock()
		id := s.current.id
		s.mu.Unlock()
		if id != nil { // for peers that ask for evidence
			connector = ratls.NewMutualConnector(id, party, protocols...)
		}
		return appraiseLeaf(ctx, connector, t)
	}
	return pins.New(place, appraise, pins.Options{Now: g.app.now, Changed: s.publish, Told: func(t pins.Target, r *attest.Result, err error) { s.tell(name, t, r, err) }})
}

// tell says what has become of a peer, where it is another thing than before.
func (s *secrets) tell(name string, t pins.Target, r *attest.Result, err error) {
	if err == nil {
		err = r.Err()
	}
	what := "affirmed"
	if err != nil {
		what = string(attest.CodeOf(err))
	}
	s.mu.Lock()
	again := s.told[t] == what
	if len(s.told) > 1024 {
		clear(s.told)
	}
	s.told[t] = what
	s.mu.Unlock()
	log := s.log.With("secret", name, "peer", t.Address)
	if t.Successor {
		log = log.With("leaf", "successor")
	}
	switch {
	case again:
	case err == nil:
		log.Info("peer affirmed for Envoy", "level", string(attest.LevelPinned), "evidence", r.EvidenceDigest())
	case r != nil:
		log.Warn("peer refused for Envoy", "code", what, "error", err.Error())
	default:
		log.Warn("peer not appraised for Envoy", "code", what, "error", err.Error())
	}
}

// publish sends what has changed.
func (s *secrets) publish() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.current == nil {
		return
	}
	var all []sds.Secret
	add := func(name string, make func() (sds.Secret, error)) {
		one, err := make()
		if err != nil {
			s.log.Error("a secret for Envoy is missing", "secret", name, "code", string(attest.CodeOf(err)), "error", err.Error())
			return
		}
		all = append(all, one)
	}
	for _, h := range s.current.given {
		add(h.name, func() (sds.Secret, error) {
			e, err := h.id.Export()
			if err != nil {
				return sds.Secret{}, err
			}
			return sds.Certificate(h.name, e.Chain, e.Key)
		})
	}
	for name, k := range s.keepers {
		var keys [][32]byte
		for _, key := range k.Keys() {
			keys = append(keys, key)
		}
		add(name, func() (sds.Secret, error) { return sds.Peers(name, keys) })
	}
	if err := s.server.Set(all); err != nil {
		s.log.Error("secrets for Envoy stay as they are", "code", string(attest.CodeOf(err)), "error", err.Error())
	}
}

// dump is what /config_dump shows: names and versions, and no secret; nil where none are handed out.
func (s *secrets) dump() any {
	if s == nil {
		return nil
	}
	type list struct {
		Keys int       `json:"keys"`
		Next time.Time `json:"next_end,omitzero"`
	}
	peers := map[string]list{}
	s.mu.Lock()
	for name, k := range s.keepers {
		peers[name] = list{len(k.Keys()), k.Next()}
	}
	s.mu.Unlock()
	return map[string]any{"clients": s.server.Clients(), "peers": peers}
}
