package evlog_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/evlog"
)

func signer(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// clock is a time that goes on by a minute at every look.
func clock() func() time.Time {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	return func() time.Time { now = now.Add(time.Minute); return now }
}

var small = evlog.Limits{Bytes: 4000, Segment: 1000}

func open(t testing.TB, dir string, key crypto.Signer, limits evlog.Limits) *evlog.Log {
	t.Helper()
	l, err := evlog.Open(dir, key, limits, clock())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func record(i int) []byte { return []byte(fmt.Sprintf("record %d of some peer", i)) }

// fill appends n records with a head after every third.
func fill(t testing.TB, l *evlog.Log, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		if got, err := l.Append(record(i)); err != nil || got != uint64(i) {
			t.Fatalf("record %d: index %d, %v", i, got, err)
		}
		if i%3 == 2 {
			if err := l.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func trust(l *evlog.Log) evlog.Trust { return evlog.TrustKeys(l.Head().KeyID()) }

func TestLog(t *testing.T) {
	_, plain, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ECDSA": signer(t), "Ed25519": plain} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			now := clock()
			l, err := evlog.Open(dir, key, evlog.DefaultLimits, now)
			if err != nil {
				t.Fatal(err)
			}
			if l.Head() != nil {
				t.Fatal("a head of nothing")
			}
			fill(t, l, 0, 10)
			early := *l.Head()
			if l, err = evlog.Open(dir, key, evlog.DefaultLimits, now); err != nil { // goes on where it was
				t.Fatal(err)
			}
			fill(t, l, 10, 7)
			a, err := evlog.Check(dir, trust(l).WithSeen(early))
			if err != nil {
				t.Fatal(err)
			}
			if !a.Head.Time.After(early.Time) {
				t.Fatalf("a head of %s after one of %s", a.Head.Time, early.Time)
			}
			if a.Head.Size != 17 || a.Kept != 17 || a.Unsigned != 0 || a.Heads != 7 {
				t.Fatalf("got %+v", a)
			}
			i := 0
			for e, err := range a.Entries(time.Time{}) {
				if err != nil || e.Index != uint64(i) || !bytes.Equal(e.Record, record(i)) {
					t.Fatalf("entry %d: %+v, %v", i, e, err)
				}
				p, err := a.Prove(e.Index)
				if err != nil {
					t.Fatal(err)
				}
				raw, err := json.Marshal(p)
				if err != nil {
					t.Fatal(err)
				}
				if back, err := evlog.ParseProof(raw, trust(l)); err != nil || !bytes.Equal(back.Record, record(i)) {
					t.Fatalf("proof %d: %v", i, err)
				}
				i++
			}
			if i != 17 {
				t.Fatalf("%d entries", i)
			}
			none := 0
			for range a.Entries(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
				none++
			}
			if none != 0 {
				t.Fatalf("%d entries of next year", none)
			}
			_, err = a.Prove(17)
			refused(t, err, attest.CodeUsage, "got record 17, want 0 to 16")
		})
	}
}

// A log is bounded: the oldest segments go, the leaves stay, and it is still whole.
func TestBounded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, signer(t), small)
	fill(t, l, 0, 400)
	a, err := evlog.Check(dir, trust(l))
	if err != nil {
		t.Fatal(err)
	}
	if a.Head.Size != 400 || a.Kept >= 200 || a.Kept < 50 {
		t.Fatalf("%d of %d kept", a.Kept, a.Head.Size)
	}
	size := int64(0)
	segments, _ := filepath.Glob(filepath.Join(dir, "*.segment"))
	for _, s := range segments {
		info, err := os.Stat(s)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > small.Bytes {
		t.Fatalf("%d bytes", size)
	}
	_, err = a.Prove(0)
	refused(t, err, attest.CodeUsage, "got record 0, which is no longer kept, want ")
	if _, err := a.Prove(399); err != nil {
		t.Fatal(err)
	}
	// That the oldest are gone does not make what is kept look like what a crash left.
	l = open(t, dir, signer(t), small)
	fill(t, l, 400, 5)
	if a, err = evlog.Check(dir, evlog.UnsafeTrustAnybody()); err != nil || a.Head.Size != 405 {
		t.Fatalf("%+v, %v", a, err)
	}
}

// A record that is larger than a segment has one of its own.
func TestLargeRecord(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, signer(t), evlog.Limits{Bytes: 100, Segment: 50})
	large := bytes.Repeat([]byte("x"), 60)
	for range 3 {
		if _, err := l.Append(large); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if a, err := evlog.Check(dir, trust(l)); err != nil || a.Kept != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
}

// What a crash leaves behind is not taken for tampering, and no signed record is lost.
func TestCrash(t *testing.T) {
	for name, crash := range map[string]func(t *testing.T, dir string){
		"half a record":         func(t *testing.T, dir string) { cut(t, last(t, dir, "*.segment"), 5) },
		"a record without leaf": func(t *testing.T, dir string) { cut(t, filepath.Join(dir, "hashes"), 32) },
		"half a leaf":           func(t *testing.T, dir string) { cut(t, filepath.Join(dir, "hashes"), 7) },
		"a leaf without record": func(t *testing.T, dir string) { cut(t, last(t, dir, "*.segment"), int64(len(record(10))+12)) },
		"a record that is not its leaf's": func(t *testing.T, dir string) {
			name := last(t, dir, "*.segment")
			change(t, name, flip(int(size(t, name))-1))
		},
		"half a head": func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "heads"), func(raw []byte) []byte { return append(raw, `{"size":11,"ro`...) })
			cut(t, filepath.Join(dir, "hashes"), 32)
		},
		"a later segment whose beginning is lost": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "0000000000000012.segment"), []byte("left over"), 0o600); err != nil {
				t.Fatal(err)
			}
			cut(t, filepath.Join(dir, "hashes"), 32)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, key := t.TempDir(), signer(t)
			l := open(t, dir, key, evlog.DefaultLimits)
			for i := range 11 {
				if _, err := l.Append(record(i)); err != nil {
					t.Fatal(err)
				}
				if i == 8 {
					if err := l.Commit(); err != nil {
						t.Fatal(err)
					}
				}
			}
			// No Close: two records without a head.
			crash(t, dir)
			l = open(t, dir, key, evlog.DefaultLimits)
			if got, err := l.Append(record(10)); err != nil || got != 10 {
				t.Fatalf("index %d, %v", got, err)
			}
			fill(t, l, 11, 3)
			a, err := evlog.Check(dir, trust(l))
			if err != nil {
				t.Fatal(err)
			}
			i := 0
			for e, err := range a.Entries(time.Time{}) {
				if err != nil || !bytes.Equal(e.Record, record(i)) {
					t.Fatalf("entry %d: %q, %v", i, e.Record, err)
				}
				i++
			}
			if i != 14 {
				t.Fatalf("%d entries", i)
			}
		})
	}
}

// A crash may lose a record and keep the one after it: the log goes on where the first was.
func TestCrashGap(t *testing.T) {
	dir, key := t.TempDir(), signer(t)
	each := evlog.Limits{Bytes: 1 << 20, Segment: 1} // a segment for each record
	l := open(t, dir, key, each)
	for i := range 5 {
		if _, err := l.Append(record(i)); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			if err := l.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Remove(filepath.Join(dir, "0000000000000003.segment")); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, key, each)
	if files := glob(t, dir); len(files) != 4 {
		t.Fatalf("what follows the gap is still there: %v", files)
	}
	fill(t, l, 3, 3)
	if a, err := evlog.Check(dir, trust(l)); err != nil || a.Kept != 6 || a.Unsigned != 0 {
		t.Fatalf("%+v, %v", a, err)
	}
}

func last(t *testing.T, dir, pattern string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	return all[len(all)-1]
}

func cut(t *testing.T, file string, n int64) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, info.Size()-n); err != nil {
		t.Fatal(err)
	}
}

func change(t *testing.T, file string, f func([]byte) []byte) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, f(raw), 0o600); err != nil {
		t.Fatal(err)
	}
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// Truncation, reordering, editing and forking are each detected.
func TestTampering(t *testing.T) {
	key := signer(t)
	dir := t.TempDir()
	l := open(t, dir, key, evlog.Limits{Bytes: 1 << 20, Segment: 200})
	fill(t, l, 0, 12)
	early := copyDir(t, dir)
	seen := *l.Head()
	l = open(t, dir, key, evlog.Limits{Bytes: 1 << 20, Segment: 200})
	fill(t, l, 12, 9)
	latest := *l.Head()
	if _, err := evlog.Check(dir, trust(l).WithSeen(seen, latest)); err != nil {
		t.Fatal(err)
	}
	headLines := func(f func([]string) []string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "heads"), func(b []byte) []byte {
				lines := strings.SplitAfter(string(b), "\n")
				return []byte(strings.Join(f(lines[:len(lines)-1]), "")) // behind the last end there is nothing
			})
		}
	}
	restore := func(t *testing.T, dir string) {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(early)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		tamper func(*testing.T, string)
		reason string
	}{
		"edited record": {func(t *testing.T, dir string) { change(t, last(t, dir, "*.segment"), flip(20)) }, "record 17 is not the one that was logged"},
		"edited time":   {func(t *testing.T, dir string) { change(t, last(t, dir, "*.segment"), flip(11)) }, "record 17 is not the one that was logged"},
		"edited leaf":   {func(t *testing.T, dir string) { change(t, filepath.Join(dir, "hashes"), flip(40)) }, "head 1: the leaves lead to another root"},
		"edited head": {func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "heads"), func(b []byte) []byte { return bytes.Replace(b, []byte(`"size":3`), []byte(`"size":2`), 1) })
		}, "head 1: the signature does not verify"},
		"records swapped": {func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "0000000000000000.segment"), func(b []byte) []byte {
				n := len(record(0)) + 12
				return append(append(append([]byte{}, b[n:2*n]...), b[:n]...), b[2*n:]...)
			})
		}, "record 0 is not the one that was logged"},
		"leaves swapped": {func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "hashes"), func(b []byte) []byte {
				return append(append(append([]byte{}, b[32:64]...), b[:32]...), b[64:]...)
			})
		}, "head 1: the leaves lead to another root"},
		"segment in the middle dropped": {func(t *testing.T, dir string) {
			if err := os.Remove(glob(t, dir)[1]); err != nil {
				t.Fatal(err)
			}
		}, "records 6 to 11 are missing"},
		"end of a segment in the middle dropped": {func(t *testing.T, dir string) { cut(t, glob(t, dir)[1], 3) }, "records 11 to 11 are missing"},
		"records of a segment in the middle dropped": {func(t *testing.T, dir string) {
			name := glob(t, dir)[1]
			cut(t, name, size(t, name)-int64(len(record(5)))-12)
		}, "records 7 to 11 are missing"},
		"last record dropped": {func(t *testing.T, dir string) { cut(t, last(t, dir, "*.segment"), 3) }, "records from 20 to 20 are missing"},
		"all records dropped": {func(t *testing.T, dir string) {
			for _, f := range glob(t, dir) {
				cut(t, f, size(t, f))
			}
		}, "records from 0 to 20 are missing"},
		"leaves cut": {func(t *testing.T, dir string) { cut(t, filepath.Join(dir, "hashes"), 32) }, "head 7: it covers 21 leaves, and 20 are there"},
		"heads that go on past the leaves": {func(t *testing.T, dir string) {
			cut(t, filepath.Join(dir, "hashes"), 32*12)
			for _, f := range glob(t, dir)[1:] {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}, "head 4: it covers 12 leaves, and 9 are there"},
		"heads alone": {func(t *testing.T, dir string) { // without leaves and records
			for _, f := range append(glob(t, dir), filepath.Join(dir, "hashes")) {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}, "no leaf"},
		"no head": {func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "heads"), func([]byte) []byte { return nil })
		}, "no head"},
		"no file at all": {func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}, "no head"},
		"first head dropped":         {headLines(func(l []string) []string { return l[1:] }), "head 1 does not continue the one before"},
		"head in the middle dropped": {headLines(func(l []string) []string { return append(l[:1:1], l[2:]...) }), "head 2 does not continue the one before"},
		"last head dropped":          {headLines(func(l []string) []string { return l[:len(l)-1] }), "covers 21 leaves, and the last one 18"},
		"end of the last head dropped": {headLines(func(l []string) []string {
			l[len(l)-1] = strings.TrimSuffix(l[len(l)-1], "\n")
			return l
		}), "covers 21 leaves, and the last one 18"},
		"heads swapped":                {headLines(func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }), "head 2 does not continue the one before"},
		"head twice":                   {headLines(func(l []string) []string { return append(l[:2:2], l[1:]...) }), "head 3 does not continue the one before"},
		"cut back to an earlier state": {restore, "that was seen before covers 21 leaves, and the last one 12"},
		"forked": {func(t *testing.T, dir string) {
			// The log's own key signs another continuation of the earlier state.
			restore(t, dir)
			other, err := evlog.Open(dir, key, evlog.DefaultLimits, clock())
			if err != nil {
				t.Fatal(err)
			}
			for i := range 9 {
				if _, err := other.Append(record(100 + i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
		}, "that was seen before: the leaves lead to another root"},
		"signed by another": {func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			fill(t, open(t, dir, signer(t), evlog.DefaultLimits), 0, 21)
		}, "which is not trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, dir)
			c.tamper(t, dir)
			// Only a head that was seen shows a log that was cut back; what a head covers, it shows by itself.
			_, err := evlog.Check(dir, trust(l).WithSeen(seen, latest))
			refused(t, err, attest.CodeLogBroken, c.reason)
		})
	}
	_, err := evlog.Check(dir, evlog.Trust{})
	refused(t, err, attest.CodeLogBroken, "which is not trusted")
	if _, err := evlog.Check(dir, evlog.UnsafeTrustAnybody()); err != nil {
		t.Error(err)
	}
	// A writer does not go on where the log does not hold what its head says.
	for name, c := range map[string]struct {
		tamper func([]byte) []byte
		reason string
	}{
		"hashes":  {flip(40), "the last head: the leaves lead to another root"},
		"heads":   {flip(40), "head 1: "},
		"heads ":  {func(b []byte) []byte { return bytes.Replace(b, []byte(`"size":21`), []byte(`"size":20`), 1) }, "head 7: the signature does not verify"},
		"hashes ": {func(b []byte) []byte { return b[:len(b)-32] }, "the last head: it covers 21 leaves, and 20 are there"},
	} {
		dir := copyDir(t, dir)
		change(t, filepath.Join(dir, strings.TrimSpace(name)), c.tamper)
		_, err := evlog.Open(dir, key, small, clock())
		refused(t, err, attest.CodeLogBroken, c.reason)
	}
}

// refused checks the code of a refusal and that its text has the reason.
func refused(t *testing.T, err error, code attest.Code, reason string) {
	t.Helper()
	if attest.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), reason) {
		t.Errorf("got %v, want %s: %s", err, code, reason)
	}
}

func glob(t *testing.T, dir string) []string {
	all, err := filepath.Glob(filepath.Join(dir, "*.segment"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func size(t *testing.T, file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
}

// A proof of another record, index, path or head is refused.
func TestProofRefused(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, signer(t), evlog.DefaultLimits)
	fill(t, l, 0, 9)
	a, err := evlog.Check(dir, trust(l))
	if err != nil {
		t.Fatal(err)
	}
	const (
		other     = "the record does not lead to the head"
		unsigned  = "the signature does not verify"
		noHashes  = "a path that is no list of hashes"
		untrusted = "which is not trusted"
	)
	for name, c := range map[string]struct {
		change func(*evlog.Proof)
		reason string
	}{
		"record":    {func(p *evlog.Proof) { p.Record[0] ^= 1 }, other},
		"time":      {func(p *evlog.Proof) { p.Time = p.Time.Add(time.Second) }, other},
		"index":     {func(p *evlog.Proof) { p.Index++ }, other},
		"path":      {func(p *evlog.Proof) { p.Path[0][0] ^= 1 }, other},
		"short":     {func(p *evlog.Proof) { p.Path = p.Path[1:] }, other},
		"longer":    {func(p *evlog.Proof) { p.Path = append(p.Path, p.Path[0]) }, other},
		"odd path":  {func(p *evlog.Proof) { p.Path[0] = p.Path[0][1:] }, noHashes},
		"long":      {func(p *evlog.Proof) { p.Path = make([]attest.HexBytes, 100) }, "a path that is too long"},
		"root":      {func(p *evlog.Proof) { p.Head.Root[0] ^= 1 }, unsigned},
		"signature": {func(p *evlog.Proof) { p.Head.Signature[9] ^= 1 }, unsigned},
		"size":      {func(p *evlog.Proof) { p.Head.Size++ }, unsigned},
		"key":       {func(p *evlog.Proof) { p.Head.Key = nil }, "asn1: "},
		"previous":  {func(p *evlog.Proof) { p.Head.Previous = p.Head.Previous[1:] }, "a previous head of the wrong size"},
	} {
		p, err := a.Prove(4)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := json.Marshal(p)
		var twin evlog.Proof // nothing shared with the audit
		good, err := evlog.ParseProof(raw, trust(l))
		if err != nil {
			t.Fatal(err)
		}
		twin = *good
		c.change(&twin)
		raw, _ = json.Marshal(twin)
		t.Run(name, func(t *testing.T) {
			_, err := evlog.ParseProof(raw, trust(l))
			refused(t, err, attest.CodeLogBroken, c.reason)
		})
	}
	p, _ := a.Prove(4)
	raw, _ := json.Marshal(p)
	_, err = evlog.ParseProof(raw, evlog.TrustKeys("sha256:00"))
	refused(t, err, attest.CodeLogBroken, untrusted)
	path := p.Path[0].String()
	for text, reason := range map[string]string{
		string(raw) + "{}": "bytes after the proof",
		string(raw) + "x":  "bytes after the proof",
		string(raw[:30]):   "unexpected EOF",
		`{"x":1}`:          `unknown field "x"`,
		`{"head":{}}`:      "a root of the wrong size",
		`{}`:               "EOF",
		strings.Replace(string(raw), path, path+"zz", 1): noHashes,
	} {
		_, err := evlog.ParseProof([]byte(text), trust(l))
		refused(t, err, attest.CodeLogBroken, reason)
	}
}

func TestBounds(t *testing.T) {
	l := open(t, t.TempDir(), signer(t), evlog.DefaultLimits)
	for _, n := range []int{0, evlog.MaxRecord + 1} {
		if _, err := l.Append(make([]byte, n)); attest.CodeOf(err) != attest.CodeOversized {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := l.Append([]byte("x"))
	refused(t, err, attest.CodeLogBroken, "whole: file already closed")
	for _, limits := range []evlog.Limits{{}, {Bytes: 10, Segment: 20}} {
		if _, err := evlog.Open(t.TempDir(), signer(t), limits, clock()); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%+v: %v", limits, err)
		}
	}
}

func FuzzParseHead(f *testing.F) {
	dir := f.TempDir()
	l := open(f, dir, signer(f), evlog.DefaultLimits)
	fill(f, l, 0, 3)
	raw, _ := json.Marshal(l.Head())
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if h, err := evlog.ParseHead(raw); err == nil && (h.Size == 0 || len(h.Root) != 32) {
			t.Fatalf("accepts %s", raw)
		}
		_, _ = evlog.ParseProof(raw, evlog.UnsafeTrustAnybody())
	})
}

func BenchmarkAppend(b *testing.B) {
	l := open(b, b.TempDir(), signer(b), evlog.DefaultLimits)
	raw := make([]byte, 12<<10)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := l.Append(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// Leaves that no head covers are anybody's: they can't stand for records that were signed.
func TestUnsignedLeaves(t *testing.T) {
	dir, key := t.TempDir(), signer(t)
	l := open(t, dir, key, evlog.DefaultLimits)
	fill(t, l, 0, 6)
	first := l.Head()
	l = open(t, dir, key, evlog.DefaultLimits)
	fill(t, l, 6, 3)
	both := trust(l).WithSeen(*first, *l.Head())
	l = open(t, dir, key, evlog.DefaultLimits)
	if _, err := l.Append(record(9)); err != nil { // unsigned
		t.Fatal(err)
	}
	for name, tamper := range map[string]func(t *testing.T, dir string){
		"cut back behind a head that was seen": func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "heads"), func(raw []byte) []byte { return raw[:bytes.LastIndexByte(raw[:len(raw)-1], '\n')+1] })
			for _, first := range []string{"06", "09"} { // what is kept ends with the earlier head
				if err := os.Remove(filepath.Join(dir, "00000000000000"+first+".segment")); err != nil {
					t.Fatal(err)
				}
			}
		},
		"only an unsigned one is kept": func(t *testing.T, dir string) {
			for _, first := range []string{"00", "06"} {
				if err := os.Remove(filepath.Join(dir, "00000000000000"+first+".segment")); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, dir)
			if _, err := evlog.Check(dir, both); err != nil {
				t.Fatal(err)
			}
			tamper(t, dir)
			if a, err := evlog.Check(dir, both); attest.CodeOf(err) != attest.CodeLogBroken {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

// A segment that begins beyond all leaves does not make a reader look for leaves that are not there.
func TestSegmentBeyond(t *testing.T) {
	dir, key := t.TempDir(), signer(t)
	l := open(t, dir, key, evlog.DefaultLimits)
	fill(t, l, 0, 4)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cut(t, filepath.Join(dir, "hashes"), 32)
	change(t, filepath.Join(dir, "heads"), func(raw []byte) []byte { return raw[:bytes.IndexByte(raw, '\n')+1] })
	if err := os.WriteFile(filepath.Join(dir, "0000000000000099.segment"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := evlog.Check(dir, trust(l)); err != nil {
		t.Fatal(err)
	}
}

func TestHeadAlone(t *testing.T) {
	dir, key := t.TempDir(), signer(t)
	l := open(t, dir, key, evlog.DefaultLimits)
	fill(t, l, 0, 3)
	raw, err := json.Marshal(l.Head())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evlog.ParseHead(raw); err != nil {
		t.Fatal(err)
	}
	h := l.Head()
	root, key64 := h.Root.String(), `"key":"`
	zeros := strings.Repeat("0", 64)
	for name, c := range map[string]struct{ old, new, reason string }{
		"two heads for one":  {"", string(raw), "bytes after the head"},
		"bytes behind":       {"", "x", "bytes after the head"},
		"unknown key":        {`"size"`, `"x":1,"size"`, `unknown field "x"`},
		"no size":            {`"size":3`, `"size":0`, "a head of nothing"},
		"no time":            {h.Time.Format(time.RFC3339), "0001-01-01T00:00:00Z", "a head of nothing"},
		"short root":         {root, root[2:], "a root of the wrong size"},
		"odd root":           {root, root + "zz", "a root of the wrong size"},
		"odd previous":       {`"previous":""`, `"previous":"zz"`, "a previous head of the wrong size"},
		"short previous":     {`"previous":""`, `"previous":"00"`, "a previous head of the wrong size"},
		"previous, and more": {`"previous":""`, `"previous":"` + zeros + `zz"`, "a previous head of the wrong size"},
		"another previous":   {`"previous":""`, `"previous":"` + zeros + `"`, "the signature does not verify"},
		"odd key":            {key64, key64 + "AAAA", "asn1: "},
		"another root":       {root, zeros, "the signature does not verify"},
	} {
		changed := string(raw) + c.new
		if c.old != "" {
			changed = strings.Replace(string(raw), c.old, c.new, 1)
		}
		if _, err := evlog.ParseHead([]byte(changed)); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: got %v, want %s", name, err, c.reason)
		}
	}
}

// Files that are no log's are refused, by who reads and by who would go on writing.
func TestMalformed(t *testing.T) {
	key := signer(t)
	dir := t.TempDir()
	l := open(t, dir, key, evlog.Limits{Bytes: 1 << 20, Segment: 100})
	fill(t, l, 0, 9)
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(name, to string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, name)), os.Symlink(to, filepath.Join(dir, name))); err != nil {
				t.Fatal(err)
			}
		}
	}
	directory := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, name)), os.Mkdir(filepath.Join(dir, name), 0o700)); err != nil {
				t.Fatal(err)
			}
		}
	}
	line := func(text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "heads"), func(b []byte) []byte { return append(b, text+"\n"...) })
		}
	}
	length := func(n uint32) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			change(t, glob(t, dir)[1], func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, n), b[4:]...) })
		}
	}
	for name, c := range map[string]struct {
		tamper func(*testing.T, string)
		reason string
	}{
		"a segment that is no number":  {write("x.segment", ""), `a segment named "x.segment"`},
		"a segment of another name":    {write("3.segment", ""), `a segment named "3.segment"`},
		"a segment beyond all numbers": {write("18446744073709551616.segment", ""), `a segment named "18446744073709551616.segment"`},
		"a segment that leads nowhere": {link("0000000000000003.segment", "nowhere"), "nowhere"},
		"a record of no bytes":         {length(0), "record 3 has 0 bytes"},
		"a record of too many bytes":   {length(evlog.MaxRecord + 1), "record 3 has 8388609 bytes"},
		"a head that is no JSON":       {line("x"), "head 4: invalid character"},
		"an empty head":                {line(""), "head 4: EOF"},
		"a head that is too long":      {line(strings.Repeat(" ", 5000)), "token too long"},
		"a part of a head that is too long": {func(t *testing.T, dir string) {
			line(strings.Repeat(" ", 5000))(t, dir)
			cut(t, filepath.Join(dir, "heads"), 1)
		}, "token too long"},
		"heads that lead in a circle": {link("heads", "heads"), "too many levels"},
		"heads that are a directory":  {directory("heads"), "heads: is a directory"},
		"leaves that are a directory": {directory("hashes"), "hashes: is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, dir)
			c.tamper(t, dir)
			_, err := evlog.Check(dir, trust(l))
			refused(t, err, attest.CodeLogBroken, c.reason)
			_, err = evlog.Open(dir, key, small, clock())
			refused(t, err, attest.CodeLogBroken, c.reason)
		})
	}
	// A record that was damaged since is not passed over.
	damaged := copyDir(t, dir)
	a, err := evlog.Check(damaged, trust(l))
	if err != nil {
		t.Fatal(err)
	}
	length(0)(t, damaged)
	for _, err = range a.Entries(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
	}
	refused(t, err, attest.CodeLogBroken, "record 3 has 0 bytes")
	_, err = a.Prove(4)
	refused(t, err, attest.CodeLogBroken, "record 3 has 0 bytes")

	// Where nothing was logged yet, nothing may be in the way.
	for name, c := range map[string]struct {
		tamper func(*testing.T, string)
		reason string
	}{
		"leaves elsewhere":              {link("hashes", "nowhere/hashes"), "open "},
		"leaves that nothing keeps":     {link("hashes", os.DevNull), "truncate "},
		"heads elsewhere":               {link("heads", "nowhere/heads"), "open "},
		"heads that nothing keeps":      {link("heads", os.DevNull), "truncate "},
		"a segment that is a directory": {directory("0000000000000000.segment"), "is a directory"},
		"one beyond that can't be removed": {func(t *testing.T, dir string) {
			directory("0000000000000099.segment")(t, dir)
			write("0000000000000099.segment/x", "")(t, dir)
		}, "remove "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.tamper(t, dir)
			_, err := evlog.Open(dir, key, small, clock())
			refused(t, err, attest.CodeLogBroken, c.reason)
			closed(t, dir)
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = evlog.Open(filepath.Join(file, "log"), key, small, clock())
	refused(t, err, attest.CodeLogBroken, "mkdir ")
}

// closed checks that no file of a log is open, where the system tells.
func closed(t *testing.T, dir string) {
	t.Helper()
	const open = "/proc/self/fd"
	files, err := os.ReadDir(open)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, f := range files {
		if name, err := os.Readlink(filepath.Join(open, f.Name())); err == nil && strings.HasPrefix(name, dir) {
			t.Errorf("%s is open", name)
		}
	}
}

func TestFilesClosed(t *testing.T) {
	dir, key := t.TempDir(), signer(t)
	fill(t, open(t, dir, key, small), 0, 200)
	closed(t, dir)
}

type oddSigner struct{ crypto.Signer }

func (oddSigner) Public() crypto.PublicKey { return "none" }

type failing struct{ crypto.Signer }

func (failing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the key is gone")
}

func TestSignerFails(t *testing.T) {
	if _, err := evlog.Open(t.TempDir(), oddSigner{signer(t)}, small, clock()); err == nil || !strings.Contains(err.Error(), "x509: ") {
		t.Errorf("a key of no kind: %v", err)
	}
	dir, key := t.TempDir(), signer(t)
	l := open(t, dir, failing{key}, small)
	if _, err := l.Append(record(0)); err != nil {
		t.Fatal(err)
	}
	refused(t, l.Commit(), attest.CodeLogBroken, "the key is gone")
	if l.Head() != nil {
		t.Error("a head that nobody signed")
	}
	// What could not be signed is signed by the next who can.
	l = open(t, dir, key, small)
	fill(t, l, 1, 2)
	if a, err := evlog.Check(dir, trust(l)); err != nil || a.Heads != 1 || a.Kept != 3 {
		t.Errorf("%+v, %v", a, err)
	}
}

// A time that JSON has no form for signs nothing.
func TestClockBeyond(t *testing.T) {
	dir, now := t.TempDir(), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	l, err := evlog.Open(dir, signer(t), small, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(record(0)); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(); err == nil || l.Head() != nil {
		t.Errorf("%v, %v", l.Head(), err)
	}
}
