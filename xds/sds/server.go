package sds

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/attested"
)

// Methods that are served.
const (
	methodSotw  = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
	methodDelta = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
)

// Server serves secrets to those who connect. Whoever reaches it gets them all: it is for a socket that one user can open. It is safe
// for concurrent use.
type Server struct {
	mu      sync.Mutex
	current *snapshot
	streams map[*stream]struct{}
	refused func(Refusal)
}

// Refusal is that an Envoy did not take what it was sent.
type Refusal struct {
	Time   time.Time
	Names  []string // of the secrets in the response
	Reason string   // as it says
}

// snapshot is what is served until it is replaced.
type snapshot struct {
	secrets  map[string]Secret
	replaced chan struct{} // closed then
}

// New makes a Server without secrets. refused, which may be nil, is told of what is not taken, and must not wait.
func New(refused func(Refusal)) *Server {
	if refused == nil {
		refused = func(Refusal) {}
	}
	return &Server{current: &snapshot{replaced: make(chan struct{})}, streams: map[*stream]struct{}{}, refused: refused}
}

// Set replaces all secrets, and sends what has changed to all who want it. Keys of peers that are not among them any more become
// nobody's. The error is an *attest.Error, where two have one name, or one has none; nothing changes then.
func (s *Server) Set(secrets []Secret) error {
	next := &snapshot{secrets: map[string]Secret{}, replaced: make(chan struct{})}
	for _, one := range secrets {
		if _, there := next.secrets[one.name]; there || one.name == "" {
			return &attest.Error{Code: attest.CodeConfigValue, Check: "sds", Subject: one.name, Got: "no name, or two secrets of one", Want: "a name for each"}
		}
		next.secrets[one.name] = one
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, old := range s.current.secrets {
		if _, stays := next.secrets[name]; !stays && old.peers {
			none, err := Peers(name, nil)
			if err != nil {
				return err
			}
			next.secrets[name] = none
		}
	}
	if maps.EqualFunc(s.current.secrets, next.secrets, func(a, b Secret) bool { return a.version == b.version && a.peers == b.peers }) {
		return nil
	}
	close(s.current.replaced)
	s.current = next
	return nil
}

func (s *Server) snapshot() *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Handlers are the methods of the service, for an attested.Server.
func (s *Server) Handlers() map[string]attested.Handler {
	handler := func(delta bool) attested.Handler {
		return func(conn attested.Stream) error { return s.serve(conn, delta) }
	}
	return map[string]attested.Handler{methodSotw: handler(false), methodDelta: handler(true)}
}

// Client is one stream, as it is shown.
type Client struct {
	Node    string    `json:"node"` // what it calls itself
	Agent   string    `json:"agent,omitempty"`
	Delta   bool      `json:"delta"`
	Since   time.Time `json:"since"`
	Secrets []Held    `json:"secrets"`
}

// Held is a secret that a client wants.
type Held struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // that it took last; "" for none
	Synced  bool   `json:"synced"`            // it is the one that there is
	Refusal string `json:"refusal,omitempty"` // why it did not take what came after
}

// Clients lists the streams that are open, in the order in which they came.
func (s *Server) Clients() []Client {
	s.mu.Lock()
	streams, now := slices.Collect(maps.Keys(s.streams)), s.current
	s.mu.Unlock()
	var all []Client
	for _, st := range streams {
		all = append(all, st.show(now))
	}
	slices.SortStableFunc(all, func(a, b Client) int { return a.Since.Compare(b.Since) })
	return all
}
