package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/ea"
)

const (
	reconnectLabel = "EXPORTER-jurat-reconnect"
	reconnectID    = 16
	// reconnectLife bounds an entry at an end that has no policy to do so.
	reconnectLife = time.Hour
	// DefaultEntries bounds a Store.
	DefaultEntries = 4096
)

// earlier is a session whose secret both ends kept.
type earlier struct {
	id     [reconnectID]byte
	secret [32]byte
	name   string   // by which a client finds it again; empty at a server
	found  *finding // about the other end; nil where it was not asked
	// SHA-256 of the SubjectPublicKeyInfo that each end attested: a new key starts anew. The client's is zero where it was
	// not asked.
	server, client [32]byte
	until          time.Time // by the clock of this end
	epoch          uint64    // of what this end demanded before it judged the other end
}

// leaf is what sender proves on a new connection.
func (e *earlier) leaf(sender ea.Role, challenge, exporter [ChallengeSize]byte) merkle.Hash {
	spki := e.server
	if sender == ea.Client {
		spki = e.client
	}
	return Leaf(sender, spki, challenge, exporter)
}

// proof is the MAC by which sender shows that it holds the secret, over the leaf of the new connection: it is of no use
// on any other.
func (e *earlier) proof(leaf merkle.Hash, request []byte) [32]byte {
	m := hmac.New(sha256.New, e.secret[:])
	m.Write([]byte("jurat-reconnect-1"))
	m.Write(leaf[:])
	m.Write(request) // an authenticator covers it likewise
	return [32]byte(m.Sum(nil))
}

func (e *earlier) proves(leaf merkle.Hash, request []byte, mac [32]byte) bool {
	want := e.proof(leaf, request)
	return subtle.ConstantTimeCompare(want[:], mac[:]) == 1
}

// Store keeps, in memory alone, secrets of sessions that were affirmed: with one, a later connection needs no quote. It
// is bounded; the oldest goes first. It is safe for concurrent use.
type Store struct {
	now func() time.Time
	max int

	mu     sync.Mutex
	byID   map[[reconnectID]byte]*earlier
	byName map[string]*earlier
	order  []*earlier // oldest first; those that are gone from byID are skipped
}

// NewStore makes a store of at most max sessions.
func NewStore(maxEntries int, now func() time.Time) *Store {
	return &Store{now: now, max: max(maxEntries, 1), byID: map[[reconnectID]byte]*earlier{}, byName: map[string]*earlier{}}
}

// Clear forgets everything: whoever reconnects has to attest anew.
func (s *Store) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.byID)
	clear(s.byName)
	s.order = nil
}

// Len is the number of sessions kept.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID)
}

func (s *Store) put(e *earlier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.name != "" {
		if old := s.byName[e.name]; old != nil {
			delete(s.byID, old.id)
		}
		s.byName[e.name] = e
	}
	s.byID[e.id] = e
	s.order = append(s.order, e)
	for len(s.byID) > s.max {
		s.forget(s.order[0])
		s.order = s.order[1:]
	}
	if len(s.order) > 2*s.max { // names that come again and again leave what is gone behind
		kept := s.order[:0:0]
		for _, e := range s.order {
			if s.byID[e.id] == e {
				kept = append(kept, e)
			}
		}
		s.order = kept
	}
}

func (s *Store) forget(e *earlier) {
	if s.byID[e.id] == e {
		delete(s.byID, e.id)
	}
	if e.name != "" && s.byName[e.name] == e {
		delete(s.byName, e.name)
	}
}

func (s *Store) drop(e *earlier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(e)
}

// named finds the session to offer to a server.
func (s *Store) named(name string) *earlier {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive(s.byName[name])
}

// identified finds the session that a client offers.
func (s *Store) identified(id []byte) *earlier {
	if s == nil || len(id) != reconnectID {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive(s.byID[[reconnectID]byte(id)])
}

func (s *Store) alive(e *earlier) *earlier {
	if e != nil && !s.now().Before(e.until) {
		s.forget(e)
		return nil
	}
	return e
}
