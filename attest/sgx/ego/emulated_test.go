//go:build ego

package ego

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/edgelesssys/ego/enclave"
	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
	"github.com/jurat-tls/jurat/test/trap"
)

// Calls of EGo's library, as its runtime answers them (edgelessrt, src/ertlibc/syscall.cpp).
const (
	callGetRemoteReport = 1000
	callGetSealKey      = 1003
	callResultStr       = 1006
	callGetLocalReport  = 1009
	callFirst           = 1000
	callLast            = 1009
)

// resultUnsupported stands for OE_UNSUPPORTED, resultFailure for any other.
const (
	resultFailure     = 1
	resultUnsupported = 2
)

// emulated is an enclave as the library sees it.
type emulated struct {
	quote  func(attest.ReportData) []byte
	result uint64                    // of a request for a report; 0 for success
	report func(report []byte)       // changes a report, header included
	key    func(key, request []byte) // changes a key
	noKeys syscall.Errno
	short  bool // keys of another size
	svn    byte // version of the processor and of the program
	other  bool // another program of the same product
}

func header(kind uint32, body []byte) []byte {
	h := binary.LittleEndian.AppendUint32(nil, 1)
	h = binary.LittleEndian.AppendUint32(h, kind)
	return append(binary.LittleEndian.AppendUint64(h, uint64(len(body))), body...)
}

// give hands a buffer to the library by the two addresses it expects it at.
func give(content []byte, at, size uint64) (uint64, syscall.Errno) {
	address, err := trap.Place(content)
	if err != nil || trap.WriteUint64(at, address) != nil || trap.WriteUint64(size, uint64(len(content))) != nil {
		return 0, unix.EFAULT
	}
	return 0, 0
}

func (e *emulated) answer(c trap.Call) (uint64, syscall.Errno) {
	switch c.Number {
	case callGetRemoteReport:
		if e.result != 0 {
			return e.result, 0
		}
		in, err := trap.Read(c.Args[0], int(c.Args[1]))
		if err != nil || len(in) != 64 {
			return 0, unix.EFAULT
		}
		report := header(2, e.quote(attest.ReportData(in)))
		if e.report != nil {
			e.report(report)
		}
		return give(report, c.Args[4], c.Args[5])
	case callGetLocalReport:
		if e.result != 0 {
			return e.result, 0
		}
		report := make([]byte, 432)
		report[0], report[258] = e.svn, e.svn // CPUSVN, ISVSVN
		return give(header(1, report), c.Args[4], c.Args[5])
	case callGetSealKey:
		request, err := trap.Read(c.Args[0], int(c.Args[1]))
		if err != nil {
			return 0, unix.EFAULT
		}
		return e.sealKey(request, c)
	case callResultStr:
		text := map[uint64]string{resultFailure: "OE_FAILURE\x00", resultUnsupported: "OE_UNSUPPORTED\x00"}[c.Args[0]]
		address, err := trap.Place([]byte(text))
		if err != nil {
			return 0, unix.EFAULT
		}
		return address, 0
	}
	return 0, 0 // the calls that free
}

// sealKey is EGETKEY: the key depends on the processor, on every field of the request, and by KEYPOLICY on the program or
// its signer. Versions later than the enclave's are refused.
func (e *emulated) sealKey(request []byte, c trap.Call) (uint64, syscall.Errno) {
	if e.noKeys != 0 {
		return 0, e.noKeys
	}
	if len(request) != 512 || request[4] > e.svn || request[8] > e.svn {
		return resultFailure, 0
	}
	h := sha256.New()
	h.Write([]byte("processor"))
	h.Write(request)
	if request[2]&1 != 0 && e.other {
		h.Write([]byte("other program"))
	}
	key := h.Sum(nil)[:16]
	if e.key != nil {
		e.key(key, request)
	}
	if e.short {
		key = key[:15]
	}
	return give(key, c.Args[2], c.Args[3])
}

// unsigned is a quote as far as an attester looks.
func unsigned(data attest.ReportData) []byte {
	q := make([]byte, 1000)
	q[0] = 3
	copy(q[368:], data[:])
	return q
}

// processor runs emulated enclaves, one at a time.
type processor struct{ running atomic.Pointer[emulated] }

// start begins to answer the library's calls in this process.
func start(t *testing.T) *processor {
	t.Helper()
	p := &processor{}
	p.run(emulated{quote: unsigned})
	if err := trap.Install(func(c trap.Call) (uint64, syscall.Errno) { return p.running.Load().answer(c) }, trap.Calls(callFirst, callLast)); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *processor) run(e emulated) {
	if e.quote == nil {
		e.quote = unsigned
	}
	if e.svn == 0 {
		e.svn = 5
	}
	p.running.Store(&e)
}

var wanted = attest.ReportData{1, 2, 3}

// TestOutside runs where no enclave is: on the machine of the tests.
func TestOutside(t *testing.T) {
	t.Parallel()
	e, err := Open()
	if attest.CodeOf(err) != attest.CodeNoTEE || e != nil {
		t.Errorf("%v, %v", e, err)
	}
	// This is why: the library gives a key all the same.
	key, err := enclave.GetSealKeyID()
	if err != nil || !bytes.Equal(key, make([]byte, 16)) {
		t.Errorf("the library outside of an enclave: %x, %v; are the checks of Open still needed?", key, err)
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*Enclave{"zero": {}, "nil": nil} {
		if _, err := e.Attest(t.Context(), wanted); attest.CodeOf(err) != attest.CodeNoTEE {
			t.Errorf("%s: Attest: %v", name, err)
		}
		if _, err := e.NewSealer(Product); attest.CodeOf(err) != attest.CodeNoTEE {
			t.Errorf("%s: NewSealer: %v", name, err)
		}
		if _, err := e.RestoreSealer(Product, make([]byte, 512)); attest.CodeOf(err) != attest.CodeNoTEE {
			t.Errorf("%s: RestoreSealer: %v", name, err)
		}
	}
	if key, err := (&Sealer{}).SealKey("context"); attest.CodeOf(err) != attest.CodeAttesterFailed || key != [32]byte{} {
		t.Errorf("%x, %v", key, err)
	}
	if key, err := (&Sealer{key: make([]byte, 16)}).SealKey("context"); attest.CodeOf(err) != attest.CodeAttesterFailed || key != [32]byte{} {
		t.Errorf("%x, %v", key, err)
	}
}

func TestOpen(t *testing.T) {
	if !trap.Again(t, nil) {
		return
	}
	p := start(t)
	zero := func(key, _ []byte) { clear(key) }
	for _, c := range []struct {
		name    string
		enclave emulated
		code    attest.Code
	}{
		{"works", emulated{}, ""},
		{"simulation without keys", emulated{result: resultUnsupported, noKeys: unix.ENOSYS}, attest.CodeNoTEE},
		{"simulation with a key of zeros", emulated{result: resultUnsupported, key: zero}, attest.CodeNoTEE},
		{"no report, but keys", emulated{result: resultUnsupported}, attest.CodeNoTEE},
		{"quoting fails", emulated{result: resultFailure}, attest.CodeAttesterFailed},
		{"report, but a key of zeros", emulated{key: zero}, attest.CodeAttesterFailed},
		{"report, but no keys", emulated{noKeys: unix.ENOSYS}, attest.CodeAttesterFailed},
		{"report, but keys fail", emulated{noKeys: unix.EIO}, attest.CodeAttesterFailed},
		{"report, but short keys", emulated{short: true}, attest.CodeAttesterFailed},
		{"local report", emulated{report: func(r []byte) { r[4] = 1 }}, attest.CodeAttesterFailed},
		{"over other data", emulated{report: func(r []byte) { r[16+368] ^= 1 }}, attest.CodeAttesterFailed},
	} {
		p.run(c.enclave)
		e, err := Open()
		if c.enclave.result == resultFailure && !strings.Contains(err.Error(), "OE_FAILURE") {
			t.Errorf("%s: the library's reason is lost: %v", c.name, err)
		}
		if attest.CodeOf(err) != c.code || (err == nil) != (e != nil) || c.enclave.noKeys == unix.EIO && !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAttest(t *testing.T) {
	if !trap.Again(t, nil) {
		return
	}
	p := start(t)
	e, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	ev, err := e.Attest(t.Context(), wanted)
	if err != nil || ev.Format != "sgx" || !bytes.Equal(ev.Raw, unsigned(wanted)) {
		t.Errorf("%+v, %v", ev, err)
	}
	if _, err := e.Attest(t.Context(), attest.ReportData{}); attest.CodeOf(err) != attest.CodeNoExpectation {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if _, err := e.Attest(ctx, wanted); attest.CodeOf(err) != attest.CodeAttesterFailed {
			t.Fatal("cancelled before:", err)
		}
	}
	// One quote at a time, and whoever waits can be called off.
	started, release := make(chan struct{}), make(chan struct{})
	p.run(emulated{quote: func(d attest.ReportData) []byte {
		started <- struct{}{}
		<-release
		return unsigned(d)
	}})
	first, second := make(chan error), make(chan error)
	ask := func(ctx context.Context, done chan error) {
		_, err := e.Attest(ctx, wanted)
		done <- err
	}
	go ask(context.Background(), first)
	<-started
	ctx, cancel = context.WithCancel(t.Context())
	go ask(ctx, second)
	cancel()
	if err := <-second; attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestSeal(t *testing.T) {
	if !trap.Again(t, nil) {
		return
	}
	p := start(t)
	e, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	key := func(s *Sealer, err error) [32]byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		k, err := s.SealKey("state")
		if err != nil || k == [32]byte{} {
			t.Fatalf("%x, %v", k, err)
		}
		return k
	}
	seen := map[[32]byte]bool{}
	for _, scope := range []Scope{Unique, Product} {
		s, err := e.NewSealer(scope)
		k := key(s, err)
		if other, err := s.SealKey("other"); err != nil || other == k {
			t.Errorf("context is not in the key: %v", err)
		}
		if _, err := s.SealKey(""); attest.CodeOf(err) != attest.CodeNoExpectation {
			t.Error(err)
		}
		if key(e.RestoreSealer(scope, s.Info())) != k {
			t.Error("another key after restoring")
		}
		again, err := e.NewSealer(scope)
		if seen[k] || key(again, err) == k {
			t.Error("the same key twice")
		}
		seen[k] = true

		p.run(emulated{svn: 6}) // an update of processor and program
		if key(e.RestoreSealer(scope, s.Info())) != k {
			t.Error("another key after an update")
		}
		p.run(emulated{svn: 4})
		if _, err := e.RestoreSealer(scope, s.Info()); attest.CodeOf(err) != attest.CodeAttesterFailed {
			t.Errorf("an older version got the key: %v", err)
		}
		p.run(emulated{other: true})
		if got := key(e.RestoreSealer(scope, s.Info())) == k; got != (scope == Product) {
			t.Errorf("scope %d: another program got the key: %v", scope, got)
		}
		p.run(emulated{})
	}
	for _, scope := range []Scope{0, 3} {
		if _, err := e.NewSealer(scope); attest.CodeOf(err) != attest.CodeAttesterFailed {
			t.Errorf("scope %d: %v", scope, err)
		}
	}
}

// TestForgedInfo: the info is kept by the host, which must not choose the kind of key.
func TestForgedInfo(t *testing.T) {
	if !trap.Again(t, nil) {
		return
	}
	start(t)
	e, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.NewSealer(Product)
	if err != nil {
		t.Fatal(err)
	}
	good := s.Info()
	if good[0] != 4 || good[2] != 2 {
		t.Fatalf("request % x", good[:80])
	}
	// KEYNAME, KEYPOLICY, the mask of ATTRIBUTES that has the debug bit, that of MISCSELECT, reserved bytes.
	for _, at := range []int{0, 1, 2, 3, 6, 7, 24, 31, 32, 39, 72, 75, 76, 511} {
		forged := bytes.Clone(good)
		forged[at] ^= 2
		if _, err := e.RestoreSealer(Product, forged); attest.CodeOf(err) != attest.CodeAttesterFailed {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	for name, forged := range map[string][]byte{"empty": nil, "short": good[:511], "long": append(bytes.Clone(good), 0)} {
		if _, err := e.RestoreSealer(Product, forged); attest.CodeOf(err) != attest.CodeAttesterFailed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := e.RestoreSealer(Unique, good); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Errorf("other scope: %v", err)
	}
	for _, at := range []int{40, 71} { // another KEYID is another key
		forged := bytes.Clone(good)
		forged[at] ^= 1
		other, err := e.RestoreSealer(Product, forged)
		if err != nil || bytes.Equal(other.key, s.key) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	copied, err := e.RestoreSealer(Product, good)
	if err != nil {
		t.Fatal(err)
	}
	good[40] ^= 1
	if bytes.Equal(good, s.info) || bytes.Equal(good, copied.info) {
		t.Error("the info is not a copy")
	}
}

// TestNoKeyOfZeros: whatever the library says, a key of zeros goes no further.
func TestNoKeyOfZeros(t *testing.T) {
	if !trap.Again(t, nil) {
		return
	}
	p := start(t)
	e, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.NewSealer(Product)
	if err != nil {
		t.Fatal(err)
	}
	info := s.Info()
	restored := func(request []byte) bool { return bytes.Equal(request, info) }
	for name, c := range map[string]emulated{
		"zeros":         {key: func(key, _ []byte) { clear(key) }},
		"no keys":       {noKeys: unix.ENOSYS},
		"keys fail":     {noKeys: unix.EIO},
		"short keys":    {short: true},
		"no report":     {result: resultFailure},
		"in simulation": {result: resultUnsupported, noKeys: unix.ENOSYS},
	} {
		p.run(c)
		for _, scope := range []Scope{Unique, Product} {
			if _, err := e.NewSealer(scope); attest.CodeOf(err) != attest.CodeAttesterFailed {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := e.RestoreSealer(Product, info); attest.CodeOf(err) != attest.CodeAttesterFailed {
			t.Errorf("%s: restored: %v", name, err)
		}
	}
	p.run(emulated{key: func(key, request []byte) {
		if restored(request) {
			clear(key)
		}
	}})
	if _, err := e.RestoreSealer(Product, info); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Errorf("restored: %v", err)
	}
}

// TestKeySource seals across an update, and for another program.
func TestKeySource(t *testing.T) {
	if !trap.Again(t, nil) {
		return
	}
	p := start(t)
	e, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	sealer := func(scope Scope) *seal.Sealer {
		t.Helper()
		s, err := seal.New("ego", e.NewKeySource(scope))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, scope := range []Scope{Unique, Product} {
		p.run(emulated{})
		sealed, err := sealer(scope).Seal("c", []byte("plain"))
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			enclave emulated
			scope   Scope
			code    attest.Code
		}{
			"the same":        {emulated{}, scope, ""},
			"an update":       {emulated{svn: 6}, scope, ""},
			"an older one":    {emulated{svn: 4}, scope, attest.CodeSealForeign},
			"another scope":   {emulated{}, Unique + Product - scope, attest.CodeSealForeign},
			"another program": {emulated{other: true}, scope, map[Scope]attest.Code{Unique: attest.CodeSealForeign}[scope]},
			"keys that are not usable": {emulated{key: func(key, request []byte) { // the fresh one is
				if bytes.Contains(sealed, request) {
					clear(key)
				}
			}}, scope, attest.CodeSealForeign},
		} {
			p.run(c.enclave)
			got, err := sealer(c.scope).Open("c", sealed)
			if attest.CodeOf(err) != c.code || err == nil && string(got) != "plain" {
				t.Errorf("scope %d, %s: %q, %v", scope, name, got, err)
			}
		}
	}
	p.run(emulated{noKeys: unix.EIO})
	if _, err := seal.New("ego", e.NewKeySource(Unique)); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
	for _, e := range []*Enclave{nil, {}} {
		if root, _, err := e.NewKeySource(Unique).Root(nil); attest.CodeOf(err) != attest.CodeNoTEE || root != nil {
			t.Error(err)
		}
	}
}
