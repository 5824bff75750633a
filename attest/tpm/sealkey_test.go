package tpm_test

import (
	"bytes"
	"crypto/sha256"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
	"github.com/jurat-tls/jurat/attest/tpm"
	"github.com/jurat-tls/jurat/test/swtpm"
)

var sealed7and14 = []int{14, 7}

func sealKeys(t *testing.T, conn net.Conn, pcrs ...int) *tpm.KeySource {
	t.Helper()
	return must(tpm.NewKeySource(tpm.NewDevice(conn), pcrs))
}

func TestSealWithSoftwareTPM(t *testing.T) {
	t.Parallel()
	conn := swtpm.Start(t)
	tpmConn := transport.FromReadWriter(conn)
	extend(t, tpmConn, event{7, 0, []byte("db")}, event{14, 0, []byte("shim")})
	sealer := must(seal.New("tpm", sealKeys(t, conn, sealed7and14...)))
	sealed := must(sealer.Seal("c", []byte("plain")))
	again := must(sealer.Seal("c", []byte("again")))
	open := func(name string, code attest.Code, pcrs ...int) {
		t.Helper()
		s := must(seal.New("tpm", sealKeys(t, conn, pcrs...)))
		for _, b := range [][]byte{sealed, again} {
			if got, err := s.Open("c", b); attest.CodeOf(err) != code || err == nil && len(got) != 5 {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
	// More often than a TPM has room for objects or sessions that are forgotten there.
	for range 4 {
		open("after a restart", "", sealed7and14...)
	}
	open("other PCRs", attest.CodeSealForeign, 7)
	open("more PCRs", attest.CodeSealForeign, 0, 7, 14)
	extend(t, tpmConn, event{8, 0, []byte("another PCR")})
	open("after another PCR was extended", "", sealed7and14...)
	extend(t, tpmConn, event{14, 0, []byte("other shim")})
	open("after a PCR was extended", attest.CodeSealForeign, sealed7and14...)

	sealed = must(must(seal.New("tpm", sealKeys(t, conn, 7))).Seal("c", []byte("plain")))
	again = sealed
	open("of the PCR that stays", "", 7)
	if _, err := (tpm2.Clear{AuthHandle: tpm2.TPMRHLockout}).Execute(tpmConn); err != nil {
		t.Fatal(err)
	}
	open("after the TPM was cleared", attest.CodeSealForeign, 7)
	sealed = must(must(seal.New("tpm", sealKeys(t, swtpm.Start(t), 23-22))).Seal("c", []byte("plain")))
	again = sealed
	open("of another TPM", attest.CodeSealForeign, 1)
}

// Somebody who may use the TPM cannot make what we open, even if he knows what the PCRs will be.
func TestForgedObject(t *testing.T) {
	t.Parallel()
	conn := swtpm.Start(t)
	tpmConn := transport.FromReadWriter(conn)
	k := sealKeys(t, conn, 7)
	now, next := make([]byte, 32), event{7, 0, []byte("ours")}
	later := replay(0x0b, next)
	root := bytes.Repeat([]byte("known..."), 4)
	forged := must(k.MakeFor(later, root))
	ofNow, ofLater := sha256.Sum256(now), sha256.Sum256(later)
	amended := bytes.Replace(forged, ofNow[:], ofLater[:], 1)
	if bytes.Equal(amended, forged) {
		t.Fatal("what the TPM says of the making of an object has no digest of PCRs")
	}
	extend(t, tpmConn, next)
	for name, hint := range map[string][]byte{"as it was made": forged, "as if it had been made later": amended} {
		if got, _, err := k.Root(hint); attest.CodeOf(err) != attest.CodeSealForeign || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// One that was made by us is not opened under a policy that is not fulfilled, either.
	mine := must(k.MakeFor(now, root))
	if got, _, err := k.Root(mine); attest.CodeOf(err) != attest.CodeSealForeign || got != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, _, err := k.Root(must(k.MakeFor(later, root))); err != nil || !bytes.Equal(got, root) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHintOfTPM(t *testing.T) {
	t.Parallel()
	k := sealKeys(t, swtpm.Start(t), 7)
	root, hint, err := k.Root(nil)
	if err != nil || len(root) != 32 {
		t.Fatalf("%x, %v", root, err)
	}
	other, _, err := k.Root(nil)
	if err != nil || bytes.Equal(root, other) {
		t.Errorf("the same root twice, %v", err)
	}
	for at := 0; at < len(hint); at += 3 {
		changed := bytes.Clone(hint)
		changed[at] ^= 1
		if got, _, err := k.Root(changed); err == nil || got != nil || attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("changed at %d: %x, %v", at, got, err)
		}
	}
	for name, c := range map[string][]byte{"empty": {}, "short": hint[:len(hint)-1], "long": append(bytes.Clone(hint), 0), "parts of nothing": make([]byte, 8)} {
		want := attest.CodeSealBroken
		if name == "parts of nothing" {
			want = attest.CodeSealForeign
		}
		if got, _, err := k.Root(c); attest.CodeOf(err) != want || got != nil {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	long := append(slices.Concat([]byte{4, 1}, make([]byte, 1025)), 0, 0, 0, 0, 0, 0)
	if _, _, err := k.Root(long); attest.CodeOf(err) != attest.CodeSealBroken {
		t.Error(err)
	}
	if got, _, err := k.Root(hint); err != nil || !bytes.Equal(got, root) {
		t.Errorf("%x, %v", got, err)
	}
}

func TestPCRsToSealWith(t *testing.T) {
	t.Parallel()
	for _, pcrs := range [][]int{nil, {-1}, {24}, {7, 7}, {16}, {7, 23}} {
		if k, err := tpm.NewKeySource(nil, pcrs); attest.CodeOf(err) != attest.CodeSelection || k != nil {
			t.Errorf("%v: %v", pcrs, err)
		}
	}
}

// heard is what goes over the bus.
type heard struct {
	net.Conn
	all bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) {
	h.all.Write(b)
	return h.Conn.Write(b)
}

func (h *heard) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.all.Write(b[:n])
	return n, err
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	bus := &heard{Conn: swtpm.Start(t)}
	k := sealKeys(t, bus, 7)
	root, hint, err := k.Root(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.Root(hint); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bus.all.Bytes(), root) || !bytes.Contains(bus.all.Bytes(), hint[2:20]) {
		t.Error("the secret is sent in the clear")
	}
}

// A TPM that fails, or does not give back what it was given, is not sealed with.
func TestTPMThatFails(t *testing.T) {
	t.Parallel()
	const (
		createPrimary   = 0x131
		create          = 0x153
		load            = 0x157
		certifyCreation = 0x14a
		unseal          = 0x15e
		readPCR         = 0x17e
	)
	failure := func([]byte) []byte { return []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1} }
	conn := swtpm.Start(t)
	_, hint, err := sealKeys(t, conn, 7).Root(nil)
	if err != nil {
		t.Fatal(err)
	}
	for code, opening := range map[uint32]attest.Code{
		createPrimary: attest.CodeNoSealing, readPCR: attest.CodeNoSealing, create: "",
		load: attest.CodeSealForeign, certifyCreation: attest.CodeSealForeign, unseal: attest.CodeSealForeign,
	} {
		k := sealKeys(t, &altered{Conn: conn, answer: map[uint32]func([]byte) []byte{code: failure}}, 7)
		if root, _, err := k.Root(nil); attest.CodeOf(err) != attest.CodeNoSealing || root != nil || !strings.Contains(err.Error(), "TPM_RC_FAILURE") {
			t.Errorf("%#x: %v", code, err)
		}
		if _, _, err := k.Root(hint); attest.CodeOf(err) != opening {
			t.Errorf("%#x, opening: %v", code, err)
		}
		flush(t, conn)
	}
	k := sealKeys(t, &altered{Conn: conn, answer: map[uint32]func([]byte) []byte{createPrimary: func(b []byte) []byte {
		b[20], b[21] = 0xff, 0xff // the type of the key, behind a header of 10 bytes, a handle and two lengths
		return b
	}}}, 7)
	for range 4 { // more often than there is room for what is not unloaded
		if root, _, err := k.Root(nil); attest.CodeOf(err) != attest.CodeNoSealing || root != nil || strings.Contains(err.Error(), "memory") {
			t.Errorf("a storage root key that is none: %v", err)
		}
	}
	// A PCR that is extended after its value was read.
	k = sealKeys(t, &altered{Conn: conn, command: map[uint32]func([]byte){create: func([]byte) {
		extend(t, transport.FromReadWriter(conn), event{7, 0, []byte("meanwhile")})
	}}}, 7)
	if root, _, err := k.Root(nil); attest.CodeOf(err) != attest.CodeNoSealing || root != nil {
		t.Error(err)
	}
}

func FuzzSealed(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 0, 1, 'b', 0, 0, 0, 2, 'c', 'd'})
	f.Add(make([]byte, 8))
	f.Fuzz(func(t *testing.T, hint []byte) {
		parts, err := tpm.ParseSealed(hint)
		if err != nil {
			coded(t, err)
			return
		}
		var again []byte
		for _, p := range parts {
			again = append(again, byte(len(p)>>8), byte(len(p)))
			again = append(again, p...)
		}
		if !bytes.Equal(again, hint) {
			t.Fatalf("%x, not %x", again, hint)
		}
	})
}
