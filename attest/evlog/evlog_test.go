package evlog_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
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
			l := open(t, dir, key, evlog.DefaultLimits)
			if l.Head() != nil {
				t.Fatal("a head of nothing")
			}
			fill(t, l, 0, 10)
			early := *l.Head()
			l = open(t, dir, key, evlog.DefaultLimits) // goes on where it was
			fill(t, l, 10, 7)
			a, err := evlog.Check(dir, trust(l).WithSeen(early))
			if err != nil {
				t.Fatal(err)
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
			if _, err := a.Prove(17); err == nil {
				t.Fatal("a proof of what is not there")
			}
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
	if _, err := a.Prove(0); err == nil {
		t.Fatal("a proof of what is gone")
	}
	if _, err := a.Prove(399); err != nil {
		t.Fatal(err)
	}
}

// What a crash leaves behind is not taken for tampering, and no signed record is lost.
func TestCrash(t *testing.T) {
	for name, crash := range map[string]func(t *testing.T, dir string){
		"half a record":         func(t *testing.T, dir string) { cut(t, last(t, dir, "*.segment"), 5) },
		"a record without leaf": func(t *testing.T, dir string) { cut(t, filepath.Join(dir, "hashes"), 32) },
		"half a leaf":           func(t *testing.T, dir string) { cut(t, filepath.Join(dir, "hashes"), 7) },
		"a leaf without record": func(t *testing.T, dir string) { cut(t, last(t, dir, "*.segment"), int64(len(record(10))+12)) },
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
				return []byte(strings.Join(f(strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")), ""))
			})
		}
	}
	for name, tamper := range map[string]func(*testing.T, string){
		"edited record": func(t *testing.T, dir string) { change(t, last(t, dir, "*.segment"), flip(20)) },
		"edited time":   func(t *testing.T, dir string) { change(t, last(t, dir, "*.segment"), flip(11)) },
		"edited leaf":   func(t *testing.T, dir string) { change(t, filepath.Join(dir, "hashes"), flip(40)) },
		"edited head": func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "heads"), func(b []byte) []byte { return bytes.Replace(b, []byte(`"size":3`), []byte(`"size":2`), 1) })
		},
		"records swapped": func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "0000000000000000.segment"), func(b []byte) []byte {
				n := len(record(0)) + 12
				return append(append(append([]byte{}, b[n:2*n]...), b[:n]...), b[2*n:]...)
			})
		},
		"leaves swapped": func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "hashes"), func(b []byte) []byte {
				return append(append(append([]byte{}, b[32:64]...), b[:32]...), b[64:]...)
			})
		},
		"segment in the middle dropped": func(t *testing.T, dir string) {
			all, _ := filepath.Glob(filepath.Join(dir, "*.segment"))
			if err := os.Remove(all[1]); err != nil {
				t.Fatal(err)
			}
		},
		"last record dropped": func(t *testing.T, dir string) { cut(t, last(t, dir, "*.segment"), 3) },
		"all records dropped": func(t *testing.T, dir string) {
			for _, f := range glob(t, dir) {
				cut(t, f, size(t, f))
			}
		},
		"leaves cut": func(t *testing.T, dir string) { cut(t, filepath.Join(dir, "hashes"), 32) },
		"no head": func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "heads"), func([]byte) []byte { return nil })
		},
		"first head dropped":         headLines(func(l []string) []string { return l[1:] }),
		"head in the middle dropped": headLines(func(l []string) []string { return append(l[:1:1], l[2:]...) }),
		"heads swapped":              headLines(func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }),
		"cut back to an earlier state": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(dir, os.DirFS(early)); err != nil {
				t.Fatal(err)
			}
		},
		"forked": func(t *testing.T, dir string) {
			// The log's own key signs another continuation of the earlier state.
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(dir, os.DirFS(early)); err != nil {
				t.Fatal(err)
			}
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
		},
		"signed by another": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			fill(t, open(t, dir, signer(t), evlog.DefaultLimits), 0, 21)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, dir)
			tamper(t, dir)
			// Only a head that was seen shows a log that was cut back; what a head covers, it shows by itself.
			_, err := evlog.Check(dir, trust(l).WithSeen(seen, latest))
			if attest.CodeOf(err) != attest.CodeLogBroken {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := evlog.Check(dir, evlog.Trust{}); attest.CodeOf(err) != attest.CodeLogBroken {
		t.Errorf("trust in nobody: %v", err)
	}
	if _, err := evlog.Check(dir, evlog.UnsafeTrustAnybody()); err != nil {
		t.Error(err)
	}
	// A writer does not go on where the log does not hold what its head says.
	for _, file := range []string{"hashes", "heads"} {
		dir := copyDir(t, dir)
		change(t, filepath.Join(dir, file), flip(40))
		if _, err := evlog.Open(dir, key, small, clock()); attest.CodeOf(err) != attest.CodeLogBroken {
			t.Errorf("%s: %v", file, err)
		}
	}
	cutBack := copyDir(t, dir)
	cut(t, filepath.Join(cutBack, "hashes"), 32)
	if _, err := evlog.Open(cutBack, key, small, clock()); attest.CodeOf(err) != attest.CodeLogBroken {
		t.Errorf("cut: %v", err)
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
	for name, change := range map[string]func(*evlog.Proof){
		"record":    func(p *evlog.Proof) { p.Record[0] ^= 1 },
		"time":      func(p *evlog.Proof) { p.Time = p.Time.Add(time.Second) },
		"index":     func(p *evlog.Proof) { p.Index++ },
		"path":      func(p *evlog.Proof) { p.Path[0][0] ^= 1 },
		"short":     func(p *evlog.Proof) { p.Path = p.Path[1:] },
		"odd path":  func(p *evlog.Proof) { p.Path[0] = p.Path[0][1:] },
		"long":      func(p *evlog.Proof) { p.Path = make([]attest.HexBytes, 100) },
		"root":      func(p *evlog.Proof) { p.Head.Root[0] ^= 1 },
		"signature": func(p *evlog.Proof) { p.Head.Signature[9] ^= 1 },
		"size":      func(p *evlog.Proof) { p.Head.Size++ },
		"key":       func(p *evlog.Proof) { p.Head.Key = nil },
		"previous":  func(p *evlog.Proof) { p.Head.Previous = p.Head.Previous[1:] },
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
		change(&twin)
		raw, _ = json.Marshal(twin)
		if _, err := evlog.ParseProof(raw, trust(l)); attest.CodeOf(err) != attest.CodeLogBroken {
			t.Errorf("%s: %v", name, err)
		}
	}
	p, _ := a.Prove(4)
	raw, _ := json.Marshal(p)
	if _, err := evlog.ParseProof(raw, evlog.TrustKeys("sha256:00")); attest.CodeOf(err) != attest.CodeLogBroken {
		t.Errorf("another key: %v", err)
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
	if _, err := l.Append([]byte("x")); attest.CodeOf(err) != attest.CodeLogBroken {
		t.Errorf("after Close: %v", err)
	}
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
	if _, err := evlog.ParseHead(append(raw, raw...)); err == nil {
		t.Error("two heads for one")
	}
}
