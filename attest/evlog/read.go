package evlog

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
)

const (
	entryHeader = 12 // length, 32 bits; time, 64 bits
	maxHeadLine = 4 << 10
	maxHeads    = 1 << 20
	suffix      = ".segment"
)

func fromHex(s string) (attest.HexBytes, error) { return hex.DecodeString(s) }

func entrySize(record []byte) int64 { return entryHeader + int64(len(record)) }

func encodeEntry(at int64, record []byte) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, entrySize(record)), uint32(len(record)))
	return append(binary.BigEndian.AppendUint64(b, uint64(at)), record...)
}

func segmentName(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d", first)+suffix)
}

func listSegments(dir string) ([]segmentFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, broken(dir, err)
	}
	var all []segmentFile
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok {
			continue
		}
		first, err := strconv.ParseUint(name, 10, 64)
		if err != nil || segmentName(dir, first) != filepath.Join(dir, e.Name()) {
			return nil, broken(dir, fmt.Errorf("a segment named %.60q", e.Name()))
		}
		info, err := e.Info()
		if err != nil {
			return nil, broken(dir, err)
		}
		all = append(all, segmentFile{first, info.Size()})
	}
	slices.SortFunc(all, func(a, b segmentFile) int { return cmp.Compare(a.first, b.first) })
	return all, nil
}

func readHashes(dir string) ([]merkle.Hash, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "hashes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, broken(dir, err)
	}
	const size = len(merkle.Hash{})
	all := make([]merkle.Hash, len(raw)/size)
	for i := range all {
		all[i] = merkle.Hash(raw[i*size : (i+1)*size])
	}
	return all, nil
}

func readHeads(dir string) ([]Head, error) {
	f, err := os.Open(filepath.Join(dir, "heads"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, broken(dir, err)
	}
	defer f.Close()
	var all []Head
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxHeadLine)
	lines.Split(wholeLines)
	for lines.Scan() {
		h, err := ParseHead(lines.Bytes())
		if err != nil {
			return nil, broken(dir, fmt.Errorf("head %d: %w", len(all)+1, err))
		}
		if all = append(all, *h); len(all) > maxHeads {
			return nil, broken(dir, errors.New("too many heads"))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, broken(dir, err)
	}
	return all, nil
}

// wholeLines leaves out a last line without an end: half a head, as a crash leaves it.
func wholeLines(data []byte, _ bool) (int, []byte, error) {
	if at := bytes.IndexByte(data, '\n'); at >= 0 {
		return at + 1, data[:at], nil
	}
	return 0, nil, nil
}

// ParseHead decodes one head and checks its signature under the key that it names: whose key that is, the caller has to
// ask.
func ParseHead(raw []byte) (*Head, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var wire struct {
		Head
		Root     string `json:"root"`
		Previous string `json:"previous"`
	}
	if err := dec.Decode(&wire); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("bytes after the head")
	}
	h := wire.Head
	var err error
	if h.Root, err = fromHex(wire.Root); err != nil || len(h.Root) != len(merkle.Hash{}) {
		return nil, errors.New("a root of the wrong size")
	}
	if h.Previous, err = fromHex(wire.Previous); err != nil || len(h.Previous) != 0 && len(h.Previous) != len(merkle.Hash{}) {
		return nil, errors.New("a previous head of the wrong size")
	}
	if h.Size == 0 || h.Time.IsZero() {
		return nil, errors.New("a head of nothing")
	}
	return &h, h.verify()
}

// Entry is one record of a log.
type Entry struct {
	Index  uint64
	Time   time.Time
	Record []byte
}

// Trust says whose heads an auditor accepts. The zero value accepts nobody's.
type Trust struct {
	keys    []string
	seen    []Head
	anybody bool
}

// TrustKeys accepts heads signed by these keys, as KeyID names them.
func TrustKeys(ids ...string) Trust { return Trust{keys: ids} }

// UnsafeTrustAnybody accepts heads by any key: they prove that a log is consistent, and not whose it is.
func UnsafeTrustAnybody() Trust { return Trust{anybody: true} }

// WithSeen also demands that the log continues heads that the auditor saw before. Only this shows a log that was cut back
// to an earlier state, or forked from one.
func (t Trust) WithSeen(heads ...Head) Trust {
	t.seen = append(slices.Clip(t.seen), heads...)
	return t
}

func (t Trust) accepts(h *Head) bool { return t.anybody || slices.Contains(t.keys, h.KeyID()) }

// Audit is a log that was found whole.
type Audit struct {
	Head     Head   // the last
	Heads    int    // how many
	Kept     uint64 // records that are still there
	Unsigned uint64 // leaves after the last head
	dir      string
	hashes   []merkle.Hash
	first    uint64
}

// Check audits a log: every head is signed by a key that is trusted and continues the one before, the leaves lead to every
// head, and every record that is kept is the one that its leaf names.
func Check(dir string, trust Trust) (*Audit, error) {
	heads, err := readHeads(dir)
	if err != nil {
		return nil, err
	}
	if len(heads) == 0 {
		return nil, broken(dir, errors.New("no head"))
	}
	hashes, err := readHashes(dir)
	if err != nil {
		return nil, err
	}
	if len(hashes) == 0 {
		return nil, broken(dir, errors.New("no leaf"))
	}
	tree := merkle.New(hashes)
	var previous *Head
	for i := range heads {
		h := &heads[i]
		switch {
		case !trust.accepts(h):
			return nil, broken(dir, fmt.Errorf("head %d is signed by %s, which is not trusted", i+1, h.KeyID()))
		case previous == nil && len(h.Previous) != 0, previous != nil && !bytes.Equal(h.Previous, previous.digest()):
			return nil, broken(dir, fmt.Errorf("head %d does not continue the one before", i+1))
		case previous != nil && (h.Size <= previous.Size || h.Time.Before(previous.Time)):
			return nil, broken(dir, fmt.Errorf("head %d goes back", i+1))
		}
		if err := leads(tree, h); err != nil {
			return nil, broken(dir, fmt.Errorf("head %d: %w", i+1, err))
		}
		previous = h
	}
	for i := range trust.seen {
		if s := &trust.seen[i]; s.Size > previous.Size {
			return nil, broken(dir, fmt.Errorf("the head of %s that was seen before covers %d leaves, and the last one %d", s.Time.Format(time.RFC3339), s.Size, previous.Size))
		}
		if err := leads(tree, &trust.seen[i]); err != nil {
			return nil, broken(dir, fmt.Errorf("the head of %s that was seen before: %w", trust.seen[i].Time.Format(time.RFC3339), err))
		}
	}
	a := &Audit{Head: *previous, Heads: len(heads), Unsigned: tree.Size() - previous.Size, dir: dir, hashes: hashes}
	return a, a.check()
}

// leads checks that the leaves lead to a head.
func leads(tree *merkle.Tree, h *Head) error {
	root, ok := tree.RootAt(h.Size)
	if !ok {
		return fmt.Errorf("it covers %d leaves, and %d are there", h.Size, tree.Size())
	}
	if !bytes.Equal(root[:], h.Root) {
		return errors.New("the leaves lead to another root")
	}
	return nil
}

func (a *Audit) check() error {
	next, started := uint64(0), false
	for e, err := range readEntries(a.dir, uint64(len(a.hashes))) {
		if err != nil {
			return err
		}
		if !started {
			next, started, a.first = e.Index, true, e.Index
		}
		if e.Index != next {
			return broken(a.dir, fmt.Errorf("records %d to %d are missing", next, e.Index-1))
		}
		if leaf(e.Time.Unix(), e.Record) != a.hashes[e.Index] {
			return broken(a.dir, fmt.Errorf("record %d is not the one that was logged", e.Index))
		}
		next++
		a.Kept++
	}
	// The oldest may be gone, the newest may not.
	if a.first >= a.Head.Size {
		return broken(a.dir, fmt.Errorf("records up to %d are missing", a.Head.Size-1))
	}
	if next < a.Head.Size {
		return broken(a.dir, fmt.Errorf("records from %d to %d are missing", next, a.Head.Size-1))
	}
	return nil
}

// readEntries reads the records of all segments below size, in order.
func readEntries(dir string, size uint64) iter.Seq2[Entry, error] {
	segments, err := listSegments(dir)
	if err != nil {
		return func(yield func(Entry, error) bool) { yield(Entry{}, err) }
	}
	return readSegments(dir, segments, size)
}

// readSegments reads those of some segments. Half a record at the end of a segment is what a crash leaves; that it does not
// hide a logged one, check sees from the indices.
func readSegments(dir string, segments []segmentFile, size uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i, s := range segments {
			end := size
			if i+1 < len(segments) {
				end = min(end, segments[i+1].first)
			}
			if !readSegment(dir, s, end, yield) {
				return
			}
		}
	}
}

func readSegment(dir string, s segmentFile, end uint64, yield func(Entry, error) bool) bool {
	f, err := os.Open(segmentName(dir, s.first))
	if err != nil {
		yield(Entry{}, broken(dir, err))
		return false
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<16)
	var header [entryHeader]byte
	for index := s.first; index < end; index++ {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return true
		}
		length := binary.BigEndian.Uint32(header[:])
		if length == 0 || length > MaxRecord {
			yield(Entry{}, broken(dir, fmt.Errorf("record %d has %d bytes", index, length)))
			return false
		}
		record := make([]byte, length)
		if _, err := io.ReadFull(r, record); err != nil {
			return true
		}
		at := time.Unix(int64(binary.BigEndian.Uint64(header[4:])), 0).UTC()
		if !yield(Entry{index, at, record}, nil) {
			return false
		}
	}
	return true
}

// Entries are the records that are kept and covered by the last head, oldest first, from a time on.
func (a *Audit) Entries(since time.Time) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range readEntries(a.dir, a.Head.Size) {
			if err == nil && e.Time.Before(since) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Proof shows, to somebody who trusts the head's key, that a record is in the log.
type Proof struct {
	Index  uint64            `json:"index"`
	Time   time.Time         `json:"time"`
	Record []byte            `json:"record"`
	Path   []attest.HexBytes `json:"path"`
	Head   Head              `json:"head"`
}

// Prove makes the proof of one record that is kept.
func (a *Audit) Prove(index uint64) (*Proof, error) {
	if index >= a.Head.Size {
		return nil, &attest.Error{Code: attest.CodeUsage, Check: "log", Got: fmt.Sprintf("record %d", index), Want: fmt.Sprintf("%d to %d", a.first, a.Head.Size-1)}
	}
	for e, err := range a.Entries(time.Time{}) {
		if err != nil {
			return nil, err
		}
		if e.Index == index {
			p := &Proof{Index: index, Time: e.Time, Record: e.Record, Head: a.Head}
			for _, h := range merkle.New(a.hashes[:a.Head.Size]).Proof(index) {
				p.Path = append(p.Path, slices.Clone(h[:]))
			}
			return p, nil
		}
	}
	return nil, &attest.Error{Code: attest.CodeUsage, Check: "log", Got: fmt.Sprintf("record %d, which is no longer kept", index), Want: fmt.Sprintf("%d to %d", a.first, a.Head.Size-1)}
}

// ParseProof decodes a proof and checks it under trust.
func ParseProof(raw []byte, trust Trust) (*Proof, error) {
	bad := func(err error) error { return &attest.Error{Code: attest.CodeLogBroken, Check: "log", Err: err} }
	var wire struct {
		Index  uint64          `json:"index"`
		Time   time.Time       `json:"time"`
		Record []byte          `json:"record"`
		Path   []string        `json:"path"`
		Head   json.RawMessage `json:"head"`
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&wire); err != nil {
		return nil, bad(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad(errors.New("bytes after the proof"))
	}
	if len(wire.Path) > merkle.MaxProof {
		return nil, bad(errors.New("a path that is too long"))
	}
	head, err := ParseHead(wire.Head)
	if err != nil {
		return nil, bad(err)
	}
	if !trust.accepts(head) {
		return nil, bad(fmt.Errorf("the head is signed by %s, which is not trusted", head.KeyID()))
	}
	p := &Proof{Index: wire.Index, Time: wire.Time.UTC(), Record: wire.Record, Head: *head}
	var path []merkle.Hash
	for _, s := range wire.Path {
		h, err := fromHex(s)
		if err != nil || len(h) != len(merkle.Hash{}) {
			return nil, bad(errors.New("a path that is no list of hashes"))
		}
		p.Path, path = append(p.Path, h), append(path, merkle.Hash(h))
	}
	root, ok := merkle.Root(leaf(p.Time.Unix(), p.Record), p.Index, head.Size, path)
	if !ok || !bytes.Equal(root[:], head.Root) {
		return nil, bad(errors.New("the record does not lead to the head"))
	}
	return p, nil
}
