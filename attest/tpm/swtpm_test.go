package tpm_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
	"github.com/jurat-tls/jurat/test/swtpm"
)

// extend measures events into the SHA-256 bank, as firmware does.
func extend(t *testing.T, conn transport.TPM, events ...event) {
	t.Helper()
	for _, e := range events {
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.pcr), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digestOf(0x0b, e.data)}}},
		}.Execute(conn)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// define writes an index that everybody may read.
func define(t *testing.T, conn transport.TPM, index uint32, data []byte) {
	t.Helper()
	public := tpm2.TPMSNVPublic{
		NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, AuthRead: true, NT: tpm2.TPMNTOrdinary, NoDA: true},
	}
	if _, err := (tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(public)}).Execute(conn); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(data); at += 512 {
		read, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(conn)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.NVWrite{
			AuthHandle: tpm2.TPMRHOwner, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: read.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+512, len(data))]}, Offset: uint16(at),
		}.Execute(conn)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestSoftwareTPM makes real quotes over extended PCRs, with a key that a local authority certifies, and replays the log.
func TestSoftwareTPM(t *testing.T) {
	t.Parallel()
	conn := swtpm.Start(t)
	events := []event{{0, 0x80000008, []byte("firmware")}, {7, 0x80000001, []byte("db")}, {7, 4, make([]byte, 4)}, {14, 13, []byte("shim")}}
	extend(t, transport.FromReadWriter(conn), events...)
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, makeLog([]uint16{4, 0x0b}, events...), 0o600); err != nil {
		t.Fatal(err)
	}
	all := make([]int, 24)
	for i := range all {
		all[i] = 23 - i
	}
	attester, err := tpm.NewAttester(tpm.NewDevice(conn), all, log)
	if err != nil {
		t.Fatal(err)
	}
	name, spki, err := attester.AK()
	if err != nil {
		t.Fatal(err)
	}
	ak := must(x509.ParsePKIXPublicKey(spki))
	issued := (&forge{}).certify(t, ak)
	ev, err := attester.Attest(t.Context(), reportData)
	if err != nil {
		t.Fatal(err)
	}
	ev.Endorsements = append(ev.Endorsements, issued.evidence.Endorsements...)
	issued.evidence = ev
	c, err := issued.verify(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[string][]byte{"pcr0": replay(0x0b, events[0]), "pcr7": replay(0x0b, events[1:3]...), "pcr14": replay(0x0b, events[3]), "pcr1": make([]byte, 32), "pcr23": make([]byte, 32)} {
		if !bytes.Equal(c.Measured[n], want) {
			t.Errorf("%s is %s, want %x", n, c.Measured[n], want)
		}
	}
	led := false
	for _, check := range c.Checks {
		led = led || check.ID == "authenticity.log" && check.Got == "0, 7, 14"
	}
	if !led || !c.Folded || len(c.Measured) != 24 || c.Numbers["tpm_clock"] == 0 || c.Numbers["tpm_firmware"] == 0 {
		t.Errorf("%+v", c)
	}
	result := attest.NewAppraiser(attest.NoEndorser{}, tpm.NewVerifier(issued.roots)).Appraise(t.Context(), ev, attest.Expect(reportData, attest.LevelKey, epoch), allowAll{}, epoch)
	if !result.Affirmed() {
		t.Error(result.Err())
	}
	// Another event, and the log no longer leads to the quote.
	extend(t, transport.FromReadWriter(conn), events[1])
	ev, err = attester.Attest(t.Context(), reportData)
	if err != nil {
		t.Fatal(err)
	}
	ev.Endorsements, issued.evidence = issued.evidence.Endorsements, ev
	if _, err := issued.verify(t, nil); attest.CodeOf(err) != attest.CodeEventLog {
		t.Error(err)
	}
	// Named by the operator, by the name that the TPM itself gives the key.
	ev.Endorsements, ev.EventLog = nil, nil
	if _, err := tpm.NewVerifier(nil).Verify(t.Context(), ev, endorser(func(ref attest.Ref) ([]attest.Endorsement, error) {
		if ref.Path != "/ak?name="+attest.HexBytes(name).String() {
			t.Error(ref)
		}
		return []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: spki}}, nil
	}), epoch); err != nil {
		t.Error(err)
	}
	// The key is the same after a restart: an operator can name it for good.
	again, err := tpm.NewAttester(tpm.NewDevice(conn), []int{7}, "")
	if err != nil {
		t.Fatal(err)
	}
	if other, _, err := again.AK(); err != nil || !bytes.Equal(other, name) {
		t.Errorf("%x, %v", other, err)
	}
	ev, err = again.Attest(t.Context(), reportData)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := tpm.Parse(ev.Raw); err != nil || len(d.Values) != 1 || len(d.Quote.ExtraData) != 32 {
		t.Errorf("%+v, %v", d, err)
	}
	if !strings.HasPrefix(string(ev.Raw), "JTPM\x01") || ev.Format != tpm.Format || ev.EventLog != nil || ev.Endorsements != nil {
		t.Errorf("%+v", ev)
	}
	if _, err := again.Attest(t.Context(), attest.ReportData{}); attest.CodeOf(err) != attest.CodeNoExpectation {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := again.Attest(t.Context(), reportData); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
}

// Where Google keeps a template and a certificate, they are used.
func TestSoftwareTPMOfGoogle(t *testing.T) {
	t.Parallel()
	for name, index := range map[string]uint32{"ECC": 0x01c10003, "RSA": 0x01c10001} {
		conn := swtpm.Start(t)
		tpmConn := transport.FromReadWriter(conn)
		template := tpm2.TPMTPublic{
			Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
				Scheme:  tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
				KeyBits: 2048,
			}),
			Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)}),
		}
		if name == "ECC" {
			template.Type = tpm2.TPMAlgECC
			template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
				CurveID: tpm2.TPMECCNistP256,
			})
			template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)}})
		}
		define(t, tpmConn, index, tpm2.Marshal(template))
		created, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(tpmConn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (tpm2.FlushContext{FlushHandle: created.ObjectHandle}).Execute(tpmConn); err != nil {
			t.Fatal(err)
		}
		public, err := tpm.ParsePublic(created.OutPublic.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		f := withCert("leaf", func(c *x509.Certificate) {
			g := gce{"europe-west4-a", 1, "p", 42, "i", true, nil, false}
			c.UnknownExtKeyUsage = nil
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 21}, Value: g.encode()}}
		})
		issued := f.certify(t, public.Key)
		define(t, tpmConn, index-1, issued.evidence.Endorsements[0].Raw)
		attester, err := tpm.NewAttester(tpm.NewDevice(conn), []int{0, 7}, "")
		if err != nil {
			t.Fatal(err)
		}
		ev, err := attester.Attest(t.Context(), reportData)
		if err != nil {
			t.Fatal(err)
		}
		if len(ev.Endorsements) != 1 {
			t.Fatalf("%s: %d endorsements", name, len(ev.Endorsements))
		}
		ev.Endorsements = append(ev.Endorsements, issued.evidence.Endorsements[1:]...)
		issued.evidence = ev
		c, err := issued.verify(t, nil)
		if err != nil || c.Module != "projects/p/zones/europe-west4-a/instances/42" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func TestDevice(t *testing.T) {
	t.Parallel()
	if _, err := tpm.Open(filepath.Join(t.TempDir(), "absent")); attest.CodeOf(err) != attest.CodeNoTEE {
		t.Error(err)
	}
	if _, err := tpm.Open(t.TempDir()); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
	for _, pcrs := range [][]int{nil, {-1}, {24}, {7, 3, 7}} {
		if _, err := tpm.NewAttester(nil, pcrs, ""); attest.CodeOf(err) != attest.CodeSelection {
			t.Errorf("%v: %v", pcrs, err)
		}
	}
	if _, err := tpm.NewAttester(tpm.NewDevice(broken{}), []int{7}, ""); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error)    { return 0, errors.New("broken") }
func (broken) Write(b []byte) (int, error) { return len(b), nil }
func (broken) Close() error                { return nil }

// A turn that does not come ends with the context.
func TestAttestWaits(t *testing.T) {
	t.Parallel()
	conn := &slow{Conn: swtpm.Start(t), started: make(chan struct{}), proceed: make(chan struct{})}
	attester, err := tpm.NewAttester(tpm.NewDevice(conn), []int{7}, "")
	if err != nil {
		t.Fatal(err)
	}
	conn.armed.Store(true)
	done := make(chan error)
	go func() {
		_, err := attester.Attest(context.Background(), reportData)
		done <- err
	}()
	<-conn.started
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := attester.Attest(ctx, reportData); !errors.Is(err, context.DeadlineExceeded) || attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
	close(conn.proceed)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// slow is a TPM that takes its time over the first command after it was armed.
type slow struct {
	net.Conn
	armed            atomic.Bool
	started, proceed chan struct{}
}

func (s *slow) Write(b []byte) (int, error) {
	if s.armed.CompareAndSwap(true, false) {
		close(s.started)
		<-s.proceed
	}
	return s.Conn.Write(b)
}

// A PCR that is extended while it is read: the quote is made again.
func TestSoftwareTPMInMotion(t *testing.T) {
	t.Parallel()
	for times, code := range map[int32]attest.Code{1: "", 4: "", 5: attest.CodeAttesterFailed} {
		conn := &moving{Conn: swtpm.Start(t)}
		attester, err := tpm.NewAttester(tpm.NewDevice(conn), []int{16}, "")
		if err != nil {
			t.Fatal(err)
		}
		conn.left, conn.extend = times, func() { extend(t, transport.FromReadWriter(conn.Conn), event{16, 0, []byte("x")}) }
		ev, err := attester.Attest(t.Context(), reportData)
		if attest.CodeOf(err) != code {
			t.Errorf("%d times: %v", times, err)
		}
		if err == nil {
			f := (&forge{}).certify(t, must(x509.ParsePKIXPublicKey(must2(attester.AK()))))
			ev.Endorsements, f.evidence = f.evidence.Endorsements, ev
			if _, err := f.verify(t, nil); err != nil {
				t.Error(err)
			}
		}
	}
}

func must2[T any](_, v T, err error) T { return must(v, err) }

// moving extends a PCR before each of some reads.
type moving struct {
	net.Conn
	left   int32
	extend func()
}

func (m *moving) Write(b []byte) (int, error) {
	const commandPCRRead = 0x17e
	if m.left > 0 && binary.BigEndian.Uint32(b[6:]) == commandPCRRead {
		m.left--
		m.extend()
	}
	return m.Conn.Write(b)
}

func TestReadLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for size, want := range map[int]int{0: 0, attest.MaxEventLog: attest.MaxEventLog, attest.MaxEventLog + 1: 0} {
		file := filepath.Join(dir, "log")
		if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if log, err := tpm.ReadLog(file); err != nil || len(log) != want {
			t.Errorf("%d bytes: %d, %v", size, len(log), err)
		}
	}
	if _, err := tpm.ReadLog(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, bad := range []string{dir, filepath.Join(dir, "absent")} {
		if _, err := tpm.ReadLog(bad); err == nil {
			t.Errorf("%s: no error", bad)
		}
		attester, err := tpm.NewAttester(tpm.NewDevice(swtpm.Start(t)), []int{7}, bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := attester.Attest(t.Context(), reportData); attest.CodeOf(err) != attest.CodeAttesterFailed {
			t.Error(err)
		}
	}
}

// What a cloud left where Google keeps its template is not believed to be one.
func TestSoftwareTPMWithAnotherTemplate(t *testing.T) {
	t.Parallel()
	for name, template := range map[string][]byte{"junk": {1, 2, 3}, "of an endorsement key": tpm2.Marshal(tpm2.ECCEKTemplate)} {
		conn := swtpm.Start(t)
		define(t, transport.FromReadWriter(conn), 0x01c10003, template)
		if _, err := tpm.NewAttester(tpm.NewDevice(conn), []int{7}, ""); attest.CodeOf(err) != attest.CodeAttesterFailed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQuoteBy(t *testing.T) {
	t.Parallel()
	conn := swtpm.Start(t)
	tpmConn := transport.FromReadWriter(conn)
	device := tpm.NewDevice(conn)
	if _, err := device.QuoteBy(0x81000003, reportData, []int{7}); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
	attester, err := tpm.NewAttester(device, []int{7}, "")
	if err != nil {
		t.Fatal(err)
	}
	name, spki, err := attester.AK()
	if err != nil {
		t.Fatal(err)
	}
	const transient = 0x80000000 // the first and only key that is loaded
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: transient, Name: tpm2.TPM2BName{Buffer: name}}, PersistentHandle: 0x81000003,
	}.Execute(tpmConn)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := device.QuoteBy(0x81000003, reportData, []int{23, 7})
	if err != nil {
		t.Fatal(err)
	}
	q, err := tpm.ParseQuoted(parts[tpm.PartQuote], parts[tpm.PartSignature], parts[tpm.PartPCRs])
	if err != nil {
		t.Fatal(err)
	}
	folded := reportData.Fold()
	if err := q.Verify(must(x509.ParsePKIXPublicKey(spki))); err != nil || len(q.Values) != 2 || !bytes.Equal(q.Quote.ExtraData, folded[:32]) {
		t.Errorf("%+v, %v", q, err)
	}
	failing := tpm.NewDevice(&altered{Conn: conn, answer: map[uint32]func([]byte) []byte{0x158: func(b []byte) []byte { return b[:4] }}})
	if parts, err := failing.QuoteBy(0x81000003, reportData, []int{7}); attest.CodeOf(err) != attest.CodeAttesterFailed || parts != nil {
		t.Errorf("%v, %v", parts, err)
	}
	if _, err := device.QuoteBy(0x81000003, reportData, nil); attest.CodeOf(err) != attest.CodeSelection {
		t.Error(err)
	}
}

// altered is a TPM of which some commands, or the answers to them, are others.
type altered struct {
	net.Conn
	last    uint32
	command map[uint32]func([]byte)
	answer  map[uint32]func([]byte) []byte
}

func (a *altered) Write(b []byte) (int, error) {
	a.last = binary.BigEndian.Uint32(b[6:])
	if change := a.command[a.last]; change != nil {
		b = bytes.Clone(b)
		change(b)
	}
	return a.Conn.Write(b)
}

func (a *altered) Read(b []byte) (int, error) {
	n, err := a.Conn.Read(b)
	if change := a.answer[a.last]; change != nil && err == nil {
		n = copy(b, change(b[:n]))
	}
	return n, err
}

// What a TPM answers that is none, or not what was asked for, is not passed on.
func TestOddTPM(t *testing.T) {
	t.Parallel()
	const (
		readIndex  = 0x14e
		readQuote  = 0x158
		readPublic = 0x169 // of an index
		readPCR    = 0x17e
		index      = 0x01500000
	)
	failure := func([]byte) []byte { return []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1} }
	conn := swtpm.Start(t)
	define(t, transport.FromReadWriter(conn), index, make([]byte, 700))
	for name, c := range map[string]struct {
		command func([]byte)
		answer  func([]byte) []byte
		code    uint32
		reason  string
	}{
		"as it is": {},
		"no description of an index": {nil, func(b []byte) []byte {
			for i := 12; i < 12+int(binary.BigEndian.Uint16(b[10:])); i++ {
				b[i] = 0xff
			}
			return b
		}, readPublic, "index 0x1500000: "},
		"an index that can't be read": {nil, failure, readIndex, "index 0x1500000: TPM_RC_FAILURE"},
		"less of an index":            {func(b []byte) { b[len(b)-4]-- }, nil, readIndex, "index 0x1500000 answers "},
		"no quote":                    {nil, failure, readQuote, "quote: TPM_RC_FAILURE"},
		"a quote that is none": {nil, func(b []byte) []byte {
			return bytes.Replace(b, []byte("\xffTCG"), []byte("\xffTCH"), 1)
		}, readQuote, "malformed"},
		"no PCRs": {nil, failure, readPCR, "PCRs: TPM_RC_FAILURE"},
		"fewer PCRs than said": {nil, func(b []byte) []byte {
			copy(b[21:], "\xff\xff\xff") // behind a header of 10 bytes, two counts, an algorithm and a length
			return b
		}, readPCR, "the TPM has no SHA-256 PCR 7"},
		"other PCRs": {nil, func(b []byte) []byte {
			copy(b[21:], "\x01\x00\x00")
			return b
		}, readPCR, "the TPM has no SHA-256 PCR 7"},
	} {
		device := tpm.NewDevice(&altered{
			Conn: conn, command: map[uint32]func([]byte){c.code: c.command}, answer: map[uint32]func([]byte) []byte{c.code: c.answer},
		})
		read, err := device.ReadIndex(index)
		if err == nil && len(read) != 700 {
			t.Errorf("%s: %d bytes", name, len(read))
		}
		if err == nil {
			var attester *tpm.Attester
			if attester, err = tpm.NewAttester(device, []int{7}, ""); err == nil {
				_, err = attester.Attest(t.Context(), reportData)
			}
		}
		if c.reason == "" && err != nil || c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason)) {
			t.Errorf("%s: got %v, want %s", name, err, c.reason)
		}
		flush(t, conn)
	}
}

// flush unloads the keys that an Attester leaves to the resource manager.
func flush(t *testing.T, conn net.Conn) {
	t.Helper()
	tpmConn := transport.FromReadWriter(conn)
	loaded, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: 0x80000000, PropertyCount: 8}.Execute(tpmConn)
	if err != nil {
		t.Fatal(err)
	}
	handles, err := loaded.CapabilityData.Data.Handles()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range handles.Handle {
		if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(tpmConn); err != nil {
			t.Fatal(err)
		}
	}
}
