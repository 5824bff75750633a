package endorse

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Bounds of the cache.
const (
	maxKept      = 1024 // answers in memory
	maxFiles     = 4096 // answers on disk
	maxEntryFile = 2 << 20
)

// renewAge is the age at which a newer revocation list or vendor's judgement of TCB levels is looked for, however long the
// old one is valid: what was withdrawn yesterday should not be accepted for a month.
const renewAge = 24 * time.Hour

// cache keeps answers in memory and on disk. What it returns is as untrusted as the network.
type cache struct {
	dir   string // nowhere: memory only
	files int    // that dir may have

	mu   sync.Mutex
	kept map[attest.Ref]*kept
}

// kept is an answer in memory.
type kept struct {
	Entry
	expires time.Time
	due     time.Time // when to look for a newer one
	used    bool      // somebody asked for it since it came
}

// nowhere is a directory below which nothing can be read or written.
const nowhere = os.DevNull

func newCache(dir string) (*cache, error) {
	if dir == "" {
		dir = nowhere
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "endorser", Subject: dir, Want: "a directory to cache endorsements in", Err: err}
	}
	return &cache{dir: dir, files: maxFiles, kept: map[attest.Ref]*kept{}}, nil
}

// due is when an answer is renewed: at a random point between half and nine tenths of the time that is left, so that
// proxies which started together do not ask together.
func due(e *Entry, expires, now time.Time, random float64) time.Time {
	share := 0.5 + 0.4*random
	at := now.Add(time.Duration(share * float64(expires.Sub(now))))
	if e.Ref.Kind == attest.KindCertificate {
		return at
	}
	if e.Fetched.After(now) { // by a clock that is wrong, or in a bundle that lies
		return now
	}
	if soon := e.Fetched.Add(time.Duration(share * float64(renewAge))); soon.Before(at) {
		return soon
	}
	return at
}

// get finds an answer, which may have expired: the zero value has, for ever.
func (c *cache) get(ref attest.Ref, now time.Time, random func() float64) kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.kept[ref]
	if !ok {
		e, found := c.read(ref)
		if !found {
			return kept{}
		}
		k = c.remember(&e, now, random())
	}
	k.used = true
	return *k
}

// remember keeps an entry in memory; the caller holds the lock.
func (c *cache) remember(e *Entry, now time.Time, random float64) *kept {
	if len(c.kept) >= maxKept {
		clear(c.kept)
	}
	expires, _ := e.Expires() // whoever made the entry has checked it
	k := &kept{Entry: *e, expires: expires, due: due(e, expires, now, random)}
	c.kept[e.Ref] = k
	return k
}

// put keeps an answer, and reports whether it says something else than the one before. A disk that does not take it
// costs a request later, nothing else.
func (c *cache) put(e *Entry, random float64) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.kept[e.Ref]; old != nil {
		changed = !slices.EqualFunc(old.Endorsements, e.Endorsements, func(a, b attest.Endorsement) bool {
			return a.Kind == b.Kind && string(a.Raw) == string(b.Raw)
		})
	}
	c.remember(e, e.Fetched, random)
	_ = c.write(e)
	return changed
}

// wanted lists what somebody uses and is still valid, with the time at which to renew it.
func (c *cache) wanted(now time.Time) map[attest.Ref]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[attest.Ref]time.Time{}
	for ref, k := range c.kept {
		if k.used && !now.After(k.expires) {
			out[ref] = k.due
		}
	}
	return out
}

func (c *cache) write(e *Entry) error {
	raw, _ := json.Marshal(e.pack()) // bytes and text: it does not fail
	c.trim()
	f, err := os.CreateTemp(c.dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), c.file(e.Ref))
}

// trim makes room for one more file by removing the oldest quarter. Whoever can present evidence of many chips must not
// fill the disk.
func (c *cache) trim() {
	entries, _ := os.ReadDir(c.dir)
	if len(entries) < c.files {
		return
	}
	age := map[string]time.Time{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			age[e.Name()] = info.ModTime()
		}
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return age[a.Name()].Compare(age[b.Name()]) })
	for _, e := range entries[:c.files/4] {
		if isEntryFile(e.Name()) { // a directory that serves for other things too keeps them
			_ = os.Remove(filepath.Join(c.dir, e.Name()))
		}
	}
}

func (c *cache) read(ref attest.Ref) (e Entry, ok bool) {
	f, err := os.Open(c.file(ref))
	if err != nil {
		return e, false
	}
	defer f.Close()
	raw, _ := io.ReadAll(io.LimitReader(f, maxEntryFile)) // what cannot be read is no entry
	e, err = decodeEntry(raw)
	if err != nil || e.Ref != ref {
		return Entry{}, false
	}
	return e, true
}

const entrySuffix = ".json"

// file names the answer by a hash, so that nothing of the request reaches the file system.
func (c *cache) file(ref attest.Ref) string {
	sum := sha256.Sum256([]byte(ref.Service + " " + ref.Path + " " + string(ref.Kind)))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:])+entrySuffix)
}

func isEntryFile(name string) bool {
	digest, ok := strings.CutSuffix(name, entrySuffix)
	raw, err := hex.DecodeString(digest)
	return ok && err == nil && len(raw) == sha256.Size
}
