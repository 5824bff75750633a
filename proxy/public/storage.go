package public

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/jurat-tls/jurat/attest"
)

// Sealer makes bytes unreadable to everybody outside of the TEE, and finds out whether somebody has changed them. What was sealed in one
// context opens in no other one. Open answers an error for anything that Seal, here or where the same key is, has not made.
type Sealer interface {
	Seal(context string, plain []byte) ([]byte, error)
	Open(context string, sealed []byte) ([]byte, error)
}

// maxValue bounds what is stored under a key: a chain of certificates has a few kilobytes.
const maxValue = 1 << 20

// Storage keeps accounts, keys and certificates. NewMemory, NewDirectory and NewRemote make one; the zero Storage is refused. It is safe
// for concurrent use, by any number of Certificates.
type Storage struct {
	values certmagic.Storage
	close  func() error
	shared atomic.Bool // other machines may have the keys
	served *sync.Map   // where it is somebody else's: the *tls.Certificate that was served last, by issuer and name; else nil
}

// NewMemory is a Storage that ends with the process.
func NewMemory() *Storage {
	return &Storage{values: &memory{values: map[string]kept{}, locks: map[string]chan struct{}{}}, close: func() error { return nil }}
}

// Close ends what keeps locks.
func (s *Storage) Close() error { return s.close() }

type kept struct {
	value    []byte
	modified time.Time
}

// memory implements certmagic.Storage.
type memory struct {
	mu     sync.Mutex
	values map[string]kept
	locks  map[string]chan struct{} // closed when they are released
}

func (m *memory) Lock(ctx context.Context, name string) error {
	for {
		m.mu.Lock()
		held := m.locks[name]
		if held == nil {
			m.locks[name] = make(chan struct{})
			m.mu.Unlock()
			return nil
		}
		m.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memory) Unlock(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := m.locks[name]
	if held == nil {
		return errNotHeld(name)
	}
	delete(m.locks, name)
	close(held)
	return nil
}

func errNotHeld(name string) error {
	return &attest.Error{Code: attest.CodeInternal, Check: "public.lock", Got: fmt.Sprintf("%.100q", name), Want: "a lock that is held"}
}

func (m *memory) Store(_ context.Context, key string, value []byte) error {
	if err := checkValue(key, value); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = kept{slices.Clone(value), time.Now()}
	return nil
}

func (m *memory) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.values[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(k.value), nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.values {
		if k == key || strings.HasPrefix(k, key+"/") {
			delete(m.values, k)
		}
	}
	return nil
}

func (m *memory) Exists(ctx context.Context, key string) bool {
	_, err := m.Stat(ctx, key)
	return err == nil
}

func (m *memory) List(_ context.Context, prefix string, recursive bool) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[string]bool{}
	for k := range m.values {
		under := prefix + "/"
		if prefix == "" {
			under = ""
		}
		rest, below := strings.CutPrefix(k, under)
		if !below {
			continue
		}
		for i, c := range rest {
			if c == '/' {
				found[under+rest[:i]] = true
				if !recursive {
					break
				}
			}
		}
		if recursive || !strings.Contains(rest, "/") {
			found[k] = true
		}
	}
	return listed(found)
}

// listed are the keys that were found, in order.
func listed(found map[string]bool) ([]string, error) {
	if len(found) == 0 {
		return nil, fs.ErrNotExist
	}
	var keys []string
	for k := range found {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys, nil
}

func (m *memory) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k, ok := m.values[key]; ok {
		return certmagic.KeyInfo{Key: key, Modified: k.modified, Size: int64(len(k.value)), IsTerminal: true}, nil
	}
	for k := range m.values {
		if strings.HasPrefix(k, key+"/") {
			return certmagic.KeyInfo{Key: key}, nil
		}
	}
	return certmagic.KeyInfo{}, fs.ErrNotExist
}

func checkValue(key string, value []byte) error {
	if len(value) > maxValue {
		return &attest.Error{Code: attest.CodeOversized, Check: "public.storage", Subject: key, Want: fmt.Sprintf("at most %d bytes", maxValue)}
	}
	return nil
}
