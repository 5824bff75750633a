// Package evlog keeps a log of evidence that shows when it was tampered with: a Merkle tree of RFC 9162 over records, with
// signed heads. Records are what attest/record encodes; to the log they are bytes.
//
// A directory holds
//
//	hashes      the leaf hashes, 32 bytes each, for ever
//	heads       signed heads, one JSON object a line
//	lock        held by the process that writes
//	N.segment   records from leaf N on; the oldest segments are deleted when the log outgrows its bound
//
// Whoever can write the directory can delete it, and with it everything. What is not possible without the key, or without
// contradicting a head that somebody else has seen, is to change, drop, reorder or insert a record.
package evlog

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
)

// MaxRecord bounds one record in bytes.
const MaxRecord = 8 << 20

// Limits bound a log.
type Limits struct {
	Bytes   int64 // of records kept; the oldest go first
	Segment int64 // of one segment, which is deleted whole
}

// DefaultLimits keep a gibibyte.
var DefaultLimits = Limits{Bytes: 1 << 30, Segment: 16 << 20}

// Head is the signed state of a log.
type Head struct {
	Size      uint64          `json:"size"`      // number of leaves
	Root      attest.HexBytes `json:"root"`      // of the tree over them
	Time      time.Time       `json:"time"`      // when it was signed
	Previous  attest.HexBytes `json:"previous"`  // SHA-256 of what the head before this one signed; empty for the first
	Key       []byte          `json:"key"`       // SubjectPublicKeyInfo, DER
	Signature []byte          `json:"signature"` // ECDSA with SHA-256, or Ed25519
}

// signed is what the signature covers.
func (h *Head) signed() []byte {
	b := append([]byte("jurat evidence log head v1\x00"), binary.BigEndian.AppendUint64(nil, h.Size)...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Time.Unix()))
	for _, part := range [][]byte{h.Root, h.Previous, h.Key} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// KeyID names a public key: "sha256:" and the hex digest of its SubjectPublicKeyInfo.
func (h *Head) KeyID() string { return attest.Fingerprint(h.Key) }

func (h *Head) digest() []byte {
	sum := sha256.Sum256(h.signed())
	return sum[:]
}

// verify checks the signature under the head's own key.
func (h *Head) verify() error {
	key, err := x509.ParsePKIXPublicKey(h.Key)
	if err != nil {
		return err
	}
	ok := false
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, h.digest(), h.Signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, h.signed(), h.Signature)
	}
	if !ok {
		return errors.New("the signature does not verify")
	}
	return nil
}

// leaf is the hash of an entry (RFC 9162 section 2.1.1). The time is part of the entry.
func leaf(at int64, record []byte) merkle.Hash {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(at)))
	h.Write(record)
	return merkle.Hash(h.Sum(nil))
}

// Log appends to a directory. It is safe for concurrent use.
type Log struct {
	dir    string
	signer crypto.Signer
	key    []byte
	limits Limits
	now    func() time.Time

	mu       sync.Mutex
	frontier frontier
	hashes   *os.File
	heads    *os.File
	locked   *os.File
	segment  *os.File
	segments []segmentFile
	last     *Head // nil before the first
	torn     bool  // half of something was written: a disk was full
	closed   bool
}

type segmentFile struct {
	first uint64
	size  int64
}

// Open opens or makes a log. Leaves that no head covers yet, as a crash leaves them, are kept where they are whole. A log
// that holds less than its last head says was tampered with, and is not opened; nor is one that another process writes.
func Open(dir string, signer crypto.Signer, limits Limits, now func() time.Time) (*Log, error) {
	key, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	if limits.Segment <= 0 || limits.Bytes < limits.Segment {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "log", Got: fmt.Sprintf("%+v", limits), Want: "segments that fit into the log"}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, broken(dir, err)
	}
	locked, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	l := &Log{dir: dir, signer: signer, key: key, limits: limits, now: now, locked: locked}
	if err := l.load(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func broken(dir string, err error) error {
	return &attest.Error{Code: attest.CodeLogBroken, Check: "log", Subject: dir, Err: err}
}

func (l *Log) load() error {
	heads, err := readHeads(l.dir)
	if err != nil {
		return err
	}
	if len(heads) > 0 {
		l.last = &heads[len(heads)-1]
	}
	hashes, err := readHashes(l.dir)
	if err != nil {
		return err
	}
	if l.last != nil {
		if err := leads(merkle.New(hashes), l.last); err != nil {
			return broken(l.dir, fmt.Errorf("the last head: %w", err))
		}
	}
	if l.segments, err = listSegments(l.dir); err != nil {
		return err
	}
	if hashes, err = l.whole(hashes); err != nil {
		return err
	}
	for _, h := range hashes {
		l.frontier.add(h)
	}
	open := func(name string) (f *os.File, err error) {
		return os.OpenFile(filepath.Join(l.dir, name), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	}
	if l.hashes, err = open("hashes"); err != nil {
		return broken(l.dir, err)
	}
	if err := l.hashes.Truncate(int64(len(hashes)) * int64(len(merkle.Hash{}))); err != nil {
		return broken(l.dir, err)
	}
	if l.heads, err = open("heads"); err != nil {
		return broken(l.dir, err)
	}
	if err := endLine(l.heads); err != nil {
		return broken(l.dir, err)
	}
	// A segment that begins beyond the last leaf lost what it continued. Left there it would hide what comes to be logged.
	for n := len(l.segments); n > 0 && l.segments[n-1].first > l.frontier.size; n-- {
		if err := os.Remove(segmentName(l.dir, l.segments[n-1].first)); err != nil {
			return broken(l.dir, err)
		}
		l.segments = l.segments[:n-1]
	}
	return l.roll() // never into a segment whose end may be half a record
}

// endLine cuts half a line off the end of a file.
func endLine(f *os.File) error {
	raw, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	return f.Truncate(int64(bytes.LastIndexByte(raw, '\n') + 1))
}

// whole leaves out, of the leaves that no head covers, those whose record did not reach the disk before a crash.
func (l *Log) whole(hashes []merkle.Hash) ([]merkle.Hash, error) {
	next := uint64(0)
	if l.last != nil {
		next = l.last.Size
	}
	for e, err := range readSegments(l.dir, l.segments, uint64(len(hashes))) {
		if err != nil {
			return nil, err
		}
		if e.Index < next {
			continue
		}
		if e.Index > next || leaf(e.Time.Unix(), e.Record) != hashes[e.Index] {
			break
		}
		next++
	}
	return hashes[:next], nil
}

// roll begins a new segment, and deletes the oldest ones that no longer fit.
func (l *Log) roll() error {
	if l.segment != nil {
		if err := errors.Join(l.segment.Sync(), l.segment.Close()); err != nil {
			return broken(l.dir, err)
		}
		l.segment = nil
	}
	first := l.frontier.size
	name := segmentName(l.dir, first)
	// A segment of this name holds nothing that a leaf belongs to.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return broken(l.dir, err)
	}
	l.segment = f
	if n := len(l.segments); n > 0 && l.segments[n-1].first == first {
		l.segments[n-1].size = 0
	} else {
		l.segments = append(l.segments, segmentFile{first: first})
	}
	total := l.limits.Segment // room for the new one, which is empty: it stays
	for _, s := range l.segments {
		total += s.size
	}
	for total > l.limits.Bytes {
		if err := os.Remove(segmentName(l.dir, l.segments[0].first)); err != nil {
			return broken(l.dir, err)
		}
		total -= l.segments[0].size
		l.segments = l.segments[1:]
	}
	return nil
}

// Append adds a record and answers its index. It is durable, and part of a head, after the next Commit.
func (l *Log) Append(record []byte) (uint64, error) {
	if len(record) == 0 || len(record) > MaxRecord {
		return 0, &attest.Error{Code: attest.CodeOversized, Check: "log", Got: fmt.Sprintf("%d bytes", len(record)), Want: fmt.Sprintf("1 to %d", MaxRecord)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, broken(l.dir, os.ErrClosed)
	}
	if err := l.mend(); err != nil {
		return 0, err
	}
	current := &l.segments[len(l.segments)-1]
	if current.size > 0 && current.size+entrySize(record) > l.limits.Segment {
		if err := l.roll(); err != nil {
			return 0, err
		}
		current = &l.segments[len(l.segments)-1]
	}
	at := l.now().Unix()
	l.torn = true
	if _, err := l.segment.Write(encodeEntry(at, record)); err != nil {
		return 0, broken(l.dir, err)
	}
	h := leaf(at, record)
	if _, err := l.hashes.Write(h[:]); err != nil {
		return 0, broken(l.dir, err)
	}
	l.torn = false
	current.size += entrySize(record)
	l.frontier.add(h)
	return l.frontier.size - 1, nil
}

// mend undoes half an Append: the next record goes to a segment of its own, so that nothing is read past the torn end.
func (l *Log) mend() error {
	if !l.torn {
		return nil
	}
	if err := l.hashes.Truncate(int64(l.frontier.size) * int64(len(merkle.Hash{}))); err != nil {
		return broken(l.dir, err)
	}
	if err := l.roll(); err != nil {
		return err
	}
	l.torn = false
	return nil
}

// Commit makes everything appended durable and signs a head over it. It does nothing where nothing is new.
func (l *Log) Commit() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commit()
}

func (l *Log) commit() error {
	if l.frontier.size == 0 || l.last != nil && l.last.Size == l.frontier.size {
		return nil
	}
	if err := l.mend(); err != nil {
		return err
	}
	if err := errors.Join(l.segment.Sync(), l.hashes.Sync()); err != nil {
		return broken(l.dir, err)
	}
	root := l.frontier.root()
	h := &Head{Size: l.frontier.size, Root: root[:], Time: l.now().UTC().Truncate(time.Second), Key: l.key}
	if l.last != nil {
		h.Previous = l.last.digest()
		if h.Time.Before(l.last.Time) {
			h.Time = l.last.Time // a clock that went back does not make a log that looks reordered
		}
	}
	var err error
	if _, plain := l.signer.Public().(ed25519.PublicKey); plain {
		h.Signature, err = l.signer.Sign(rand.Reader, h.signed(), crypto.Hash(0))
	} else {
		h.Signature, err = l.signer.Sign(rand.Reader, h.digest(), crypto.SHA256)
	}
	if err != nil {
		return broken(l.dir, err)
	}
	line, err := json.Marshal(h)
	if err != nil {
		return err
	}
	info, err := l.heads.Stat()
	if err != nil {
		return broken(l.dir, err)
	}
	if _, err := l.heads.Write(append(line, '\n')); err != nil {
		return broken(l.dir, errors.Join(err, l.heads.Truncate(info.Size())))
	}
	if err := l.heads.Sync(); err != nil {
		return broken(l.dir, err)
	}
	l.last = h
	return nil
}

// Head is the last signed one; nil before the first Commit.
func (l *Log) Head() *Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Close commits and closes.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	err := l.commit()
	l.closed = true
	return errors.Join(err, l.close())
}

func (l *Log) close() error {
	var errs []error
	for _, f := range []*os.File{l.segment, l.hashes, l.heads, l.locked} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// frontier is a tree that only grows: the roots of its complete subtrees, largest first.
type frontier struct {
	size  uint64
	roots []merkle.Hash
}

func (f *frontier) add(h merkle.Hash) {
	for n := f.size; n&1 == 1; n >>= 1 {
		h = merkle.Node(f.roots[len(f.roots)-1], h)
		f.roots = f.roots[:len(f.roots)-1]
	}
	f.roots = append(f.roots, h)
	f.size++
}

func (f *frontier) root() merkle.Hash {
	h := f.roots[len(f.roots)-1]
	for i := len(f.roots) - 2; i >= 0; i-- {
		h = merkle.Node(f.roots[i], h)
	}
	return h
}
