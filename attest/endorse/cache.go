package endorse

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

const (
	maxKept     = 1024 // answers in memory
	maxFailures = 1024
)

// cache keeps answers in memory and on disk, and failures in memory. What it returns is as untrusted as the network.
type cache struct {
	dir string // empty: memory only

	mu       sync.Mutex
	kept     map[string]answer
	failures map[string]failure
}

type answer struct {
	body    []byte
	fetched time.Time
}

type failure struct {
	err   error
	until time.Time
}

func newCache(dir string) (*cache, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "endorser", Subject: dir, Want: "a directory to cache endorsements in", Err: err}
		}
	}
	return &cache{dir: dir, kept: map[string]answer{}, failures: map[string]failure{}}, nil
}

// get finds an answer that is valid at now. It is fresh unless it is a revocation list that may have been replaced.
func (c *cache) get(key string, ref attest.Ref, now time.Time) (list []attest.Endorsement, fresh bool) {
	c.mu.Lock()
	a, ok := c.kept[key]
	c.mu.Unlock()
	if !ok {
		if a, ok = c.read(key); !ok {
			return nil, false
		}
		c.remember(key, a)
	}
	list, err := decode(a.body, ref)
	if err != nil || !valid(list, now) {
		return nil, false
	}
	age := now.Sub(a.fetched)
	return list, ref.Kind != attest.KindCRL || age >= 0 && age < renewCRL
}

// valid tells whether nothing in the list has expired.
func valid(list []attest.Endorsement, now time.Time) bool {
	for _, e := range list {
		switch e.Kind {
		case attest.KindCertificate:
			if cert, err := x509.ParseCertificate(e.Raw); err != nil || now.After(cert.NotAfter) {
				return false
			}
		case attest.KindCRL:
			if crl, err := x509.ParseRevocationList(e.Raw); err != nil || now.After(crl.NextUpdate) {
				return false
			}
		}
	}
	return true
}

func (c *cache) remember(key string, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= maxKept {
		clear(c.kept)
	}
	c.kept[key] = a
	delete(c.failures, key)
}

// put keeps an answer. A disk that does not take it costs a request later, nothing else.
func (c *cache) put(key string, body []byte, now time.Time) {
	c.remember(key, answer{body, now})
	if c.dir == "" {
		return
	}
	f, err := os.CreateTemp(c.dir, ".new-*")
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	_, err = f.Write(body)
	err = errors.Join(err, f.Close(), os.Chtimes(f.Name(), now, now))
	if err == nil {
		_ = os.Rename(f.Name(), c.file(key))
	}
}

func (c *cache) read(key string) (a answer, ok bool) {
	if c.dir == "" {
		return a, false
	}
	f, err := os.Open(c.file(key))
	if err != nil {
		return a, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxBody {
		return a, false
	}
	a.fetched = info.ModTime()
	a.body, err = io.ReadAll(io.LimitReader(f, maxBody))
	return a, err == nil
}

// file names the answer by a hash, so that nothing of the request reaches the file system.
func (c *cache) file(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:]))
}

// failure returns a failure that is still remembered.
func (c *cache) failure(key string, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.failures[key]
	if !ok {
		return nil
	}
	if now.After(f.until) {
		delete(c.failures, key)
		return nil
	}
	return f.err
}

func (c *cache) fail(key string, err error, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.failures) >= maxFailures {
		clear(c.failures)
	}
	c.failures[key] = failure{err, until}
}
