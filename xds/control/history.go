package control

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/internal/durable"
)

// Op is what became of a resource.
type Op string

// Values of Op.
const (
	Added   Op = "added"
	Changed Op = "changed"
	Removed Op = "removed"
)

// Difference is what a change did to one resource.
type Difference struct {
	Op      Op     `json:"op"`
	Group   string `json:"group,omitempty"` // "" where every group gets it
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version uint64 `json:"version,omitempty"` // the new one; 0 where it is removed
}

// Change is one line of the history.
type Change struct {
	Index    uint64       `json:"index"`  // from 1
	Serial   uint64       `json:"serial"` // the greatest version given so far
	Time     time.Time    `json:"time"`
	Who      string       `json:"who"`
	Digest   string       `json:"digest"`                 // of the files
	Before   string       `json:"before,omitempty"`       // the digest before
	Resource []Difference `json:"resources,omitempty"`    // what changed, the first maxListed
	More     int          `json:"more,omitempty"`         // how many more there are
	Stored   string       `json:"stored"`                 // SHA-256 of the file in which all of it is kept
	Previous string       `json:"previous_line,omitzero"` // SHA-256 of the line before; "" in the first
}

const (
	maxListed = 1000
	maxLine   = 1 << 20
	keep      = 32 // stored states; the oldest go
)

// store is the directory with the state: history, a line of JSON for each change, and stored/DIGEST.json with what a line is about.
type store struct {
	dir    string
	lines  *os.File
	lock   *os.File
	last   *Change // nil before the first
	digest string  // of the last line
	torn   int64   // where half a line begins that could not be written; -1 for none
}

// stored is what is kept of an accepted change. A line of the history names it by its digest.
type stored struct {
	Serial   uint64    `json:"serial"`
	Digest   string    `json:"digest"`
	Files    Files     `json:"files"`
	Versions []numbers `json:"versions"`
}

// numbers is a version, of a resource or of a set.
type numbers struct {
	Scope  string `json:"scope,omitempty"`
	Type   string `json:"type"`
	Name   string `json:"name,omitempty"` // "" for a set
	Number uint64 `json:"number"`
	Digest []byte `json:"digest,omitempty"`
}

func brokenState(subject string, err error) error {
	return &attest.Error{Code: attest.CodeLogBroken, Check: "xds.history", Subject: subject, Err: err}
}

// openStore opens the state of a control plane, or makes it. Half a line at the end is what a crash left: nobody heard of it. A line
// that does not continue the one before was written by somebody else, and is refused.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "stored"), 0o700); err != nil {
		return nil, brokenState(dir, err)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, brokenState(dir, err)
	}
	s := &store{dir: dir, lock: lock, torn: -1}
	if s.lines, err = os.OpenFile(filepath.Join(dir, "history"), os.O_RDWR|os.O_CREATE, 0o600); err == nil {
		err = durable.SyncDir(dir)
	}
	if err != nil {
		s.close()
		return nil, brokenState(dir, err)
	}
	var end int64
	if err := s.read(func(c *Change, line []byte) error {
		s.last, s.digest = c, lineDigest(line)
		end += int64(len(line)) + 1
		return nil
	}); err != nil {
		s.close()
		return nil, err
	}
	err = s.lines.Truncate(end)
	if err == nil {
		_, err = s.lines.Seek(end, io.SeekStart)
	}
	if err != nil {
		s.close()
		return nil, brokenState(dir, err)
	}
	return s, nil
}

func lineDigest(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// read gives all whole lines to each, oldest first.
func (s *store) read(each func(c *Change, line []byte) error) error {
	return readHistory(filepath.Join(s.dir, "history"), each)
}

func readHistory(file string, each func(c *Change, line []byte) error) error {
	f, err := os.Open(file)
	if err != nil {
		return brokenState(file, err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	var last *Change
	previous := ""
	for n := 1; ; n++ {
		line, err := readLine(r)
		if err == io.EOF {
			return nil
		}
		where := fmt.Sprintf("%s:%d", file, n)
		if err != nil {
			return brokenState(where, err)
		}
		c := new(Change)
		if err := json.Unmarshal(line, c); err != nil {
			return brokenState(where, err)
		}
		switch {
		case c.Previous != previous:
			return brokenState(where, errors.New("it does not continue the line before"))
		case c.Index != uint64(n) || last != nil && c.Serial <= last.Serial:
			return brokenState(where, errors.New("its numbers do not go on"))
		}
		if err := each(c, line); err != nil {
			return err
		}
		last, previous = c, lineDigest(line)
	}
}

// readLine answers the next line that is whole; io.EOF where there is none.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case err != bufio.ErrBufferFull:
			return nil, err
		case len(line) > maxLine:
			return nil, fmt.Errorf("a line of more than %d bytes", maxLine)
		}
	}
}

// History answers the last n changes that a state directory knows, oldest first. Everything that the history holds is checked on the
// way.
func History(dir string, n int) ([]Change, error) {
	var all []Change
	err := readHistory(filepath.Join(dir, "history"), func(c *Change, _ []byte) error {
		all = append(all, *c)
		if len(all) > n {
			all = slices.Delete(all, 0, len(all)-n)
		}
		return nil
	})
	return all, err
}

// load answers what the last line is about; nil where there is none.
func (s *store) load() (*stored, error) {
	if s.last == nil {
		return nil, nil
	}
	file := s.file(s.last.Stored)
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, brokenState(file, err)
	}
	if lineDigest(raw) != s.last.Stored {
		return nil, brokenState(file, errors.New("it is not what the history says"))
	}
	st := new(stored)
	if err := json.Unmarshal(raw, st); err != nil {
		return nil, brokenState(file, err)
	}
	if st.Serial != s.last.Serial || st.Digest != s.last.Digest || st.Files.Digest() != st.Digest {
		return nil, brokenState(file, errors.New("it is not what the history says"))
	}
	return st, nil
}

func (s *store) file(digest string) string { return filepath.Join(s.dir, "stored", digest+".json") }

// add makes a change durable. It has not happened where there is an error.
func (s *store) add(st *stored, c *Change) error {
	raw, err := json.Marshal(st)
	if err != nil {
		return err
	}
	c.Stored = lineDigest(raw)
	if err := durable.WriteFile(s.file(c.Stored), raw); err != nil {
		return brokenState(s.dir, err)
	}
	c.Index, c.Previous = 1, s.digest
	if s.last != nil {
		c.Index = s.last.Index + 1
		c.Before = s.last.Digest
	}
	line, err := json.Marshal(c)
	for err == nil && len(line) > maxLine && len(c.Resource) > 0 { // names may be long
		c.More += (len(c.Resource) + 1) / 2
		c.Resource = c.Resource[:len(c.Resource)/2]
		line, err = json.Marshal(c)
	}
	if err != nil {
		return err
	}
	if err := s.append(line); err != nil {
		return brokenState(s.dir, err)
	}
	s.last, s.digest = c, lineDigest(line)
	s.prune()
	return nil
}

// append writes a line, or nothing: what a disk that is full leaves of it is taken back, now or before the next.
func (s *store) append(line []byte) error {
	if s.torn >= 0 {
		if err := s.cut(s.torn); err != nil {
			return err
		}
		s.torn = -1
	}
	at, err := s.lines.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err = s.lines.Write(append(bytes.Clone(line), '\n')); err == nil {
		err = s.lines.Sync()
	}
	if err != nil {
		if cut := s.cut(at); cut != nil {
			s.torn = at
		}
	}
	return err
}

func (s *store) cut(at int64) error {
	if err := s.lines.Truncate(at); err != nil {
		return err
	}
	_, err := s.lines.Seek(at, io.SeekStart)
	return err
}

// prune deletes the oldest stored states, and what crashes left of others.
func (s *store) prune() {
	dir := filepath.Join(s.dir, "stored")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= keep {
		return
	}
	type old struct {
		name string
		time time.Time
	}
	var all []old
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.Name() != s.last.Stored+".json" {
			all = append(all, old{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b old) int { return b.time.Compare(a.time) })
	for i, o := range all {
		if i >= keep-1 || strings.HasPrefix(o.name, ".") {
			_ = os.Remove(filepath.Join(dir, o.name))
		}
	}
}

func (s *store) close() {
	if s.lines != nil {
		_ = s.lines.Close()
	}
	_ = s.lock.Close()
}

// keepState answers what is stored of a state.
func keepState(st *state, files Files) *stored {
	s := &stored{Serial: st.serial, Digest: st.digest, Files: files}
	for k, v := range st.versions {
		s.Versions = append(s.Versions, numbers{k.Scope, k.Type, k.Name, v.Number, v.Digest[:]})
	}
	for k, n := range st.sets {
		s.Versions = append(s.Versions, numbers{Scope: k.Scope, Type: k.Type, Number: n})
	}
	slices.SortFunc(s.Versions, func(a, b numbers) int { return key{a.Scope, a.Type, a.Name}.compare(key{b.Scope, b.Type, b.Name}) })
	return s
}

// versionsOf answers a state that has no more than the versions of what was stored.
func versionsOf(s *stored) (*state, error) {
	st := &state{versions: map[key]version{}, sets: map[key]uint64{}}
	if s == nil {
		return st, nil
	}
	st.serial, st.digest = s.Serial, s.Digest
	for _, n := range s.Versions {
		switch {
		case n.Number == 0 || n.Number > s.Serial:
			return nil, fmt.Errorf("version %d of %.100q", n.Number, n.Name)
		case n.Name == "":
			st.sets[key{n.Scope, n.Type, ""}] = n.Number
		case len(n.Digest) != 32:
			return nil, fmt.Errorf("no digest of %.100q", n.Name)
		default:
			st.versions[key{n.Scope, n.Type, n.Name}] = version{n.Number, [32]byte(n.Digest)}
		}
	}
	return st, nil
}
