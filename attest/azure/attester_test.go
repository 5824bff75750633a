package azure_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/azure"
	"github.com/jurat-tls/jurat/attest/tpm"
	"github.com/jurat-tls/jurat/test/swtpm"
)

// provision makes a software TPM into the vTPM of one of Azure's VMs: its key is persistent, and its HCL report speaks of it.
func provision(t *testing.T, f forge) (conn net.Conn, room []byte) {
	t.Helper()
	conn = swtpm.Start(t)
	tpmConn := transport.FromReadWriter(conn)
	created, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme:  tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
			KeyBits: 2048,
		}),
	})}.Execute(tpmConn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: created.ObjectHandle, Name: created.Name}, PersistentHandle: 0x81000003,
	}.Execute(tpmConn)
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm.ParsePublic(created.OutPublic.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	f.jwk = func(m map[string]any) {
		m["n"] = base64.RawURLEncoding.EncodeToString(public.Key.(*rsa.PublicKey).N.Bytes())
	}
	hcl, room := f.makeHCL()
	hcl = append(hcl, make([]byte, 2600-len(hcl))...)
	return &bigIndex{Conn: conn, index: 0x01400001, data: hcl}, room
}

// bigIndex answers for one index: that of Azure is larger than this TPM allows.
type bigIndex struct {
	net.Conn
	index  uint32
	data   []byte
	answer []byte
}

func (b *bigIndex) Write(command []byte) (int, error) {
	const nvReadPublic, nvRead = 0x169, 0x14e
	be := binary.BigEndian
	respond := func(body []byte, sessions bool) (int, error) {
		tag := uint16(0x8001)
		if sessions {
			tag = 0x8002
			body = append(be.AppendUint32(nil, uint32(len(body))), body...)
			body = append(body, 0, 0, 1, 0, 0) // the answer of a password session
		}
		out := be.AppendUint16(nil, tag)
		out = be.AppendUint32(out, uint32(10+len(body)))
		b.answer = append(be.AppendUint32(out, 0), body...)
		return len(command), nil
	}
	switch code := be.Uint32(command[6:]); {
	case code == nvReadPublic && be.Uint32(command[10:]) == b.index:
		public := be.AppendUint32(nil, b.index)
		public = be.AppendUint16(public, 0x0b)
		public = be.AppendUint32(public, 1<<18|1<<29)
		public = be.AppendUint16(public, 0)
		public = be.AppendUint16(public, uint16(len(b.data)))
		body := append(be.AppendUint16(nil, uint16(len(public))), public...)
		body = append(be.AppendUint16(body, 34), make([]byte, 34)...)
		return respond(body, false)
	case code == nvRead && be.Uint32(command[14:]) == b.index:
		tail := command[len(command)-4:]
		size, at := be.Uint16(tail), be.Uint16(tail[2:])
		part := b.data[at : at+size]
		return respond(append(be.AppendUint16(nil, size), part...), true)
	}
	return b.Conn.Write(command)
}

func (b *bigIndex) Read(out []byte) (int, error) {
	if b.answer != nil {
		n := copy(out, b.answer)
		b.answer = nil
		return n, nil
	}
	return b.Conn.Read(out)
}

func TestAttester(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("log"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []forge{{}, {tdx: true, version: 2}} {
		conn, room := provision(t, f)
		asked := 0
		attester, err := azure.NewAttester(tpm.NewDevice(conn), []int{7, 0}, log, func(_ context.Context, report []byte) ([]byte, error) {
			asked++
			if !bytes.Equal(report, room[:1024]) {
				t.Errorf("%x", report)
			}
			return append(bytes.Clone(room[0x80:0xc0]), registers()...), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		ev, err := attester.Attest(t.Context(), reportData)
		if err != nil {
			t.Fatal(err)
		}
		if ev.Format != attester.Format() || (ev.Format == azure.FormatTDX) != f.tdx || (asked == 1) != f.tdx {
			t.Errorf("%s, asked %d times", ev.Format, asked)
		}
		if string(ev.EventLog) != "log" {
			t.Errorf("log %q", ev.EventLog)
		}
		ev.Endorsements, ev.EventLog = make([]attest.Endorsement, 1), nil
		c, err := verify(t, ev)
		if err != nil || c.ReportData != reportData.Fold() || !c.Folded || !bytes.Equal(c.Measured["pcr7"], make([]byte, 32)) {
			t.Errorf("%+v, %v", c, err)
		}
		if _, err := attester.Attest(t.Context(), attest.ReportData{}); attest.CodeOf(err) != attest.CodeNoExpectation {
			t.Error(err)
		}
		if err := attester.Close(); err != nil {
			t.Error(err)
		}
		if _, err := attester.Attest(t.Context(), reportData); attest.CodeOf(err) != attest.CodeAttesterFailed {
			t.Error(err)
		}
	}
}

func TestAttesterFailures(t *testing.T) {
	t.Parallel()
	if _, err := azure.NewAttester(tpm.NewDevice(swtpm.Start(t)), []int{7}, "", nil); attest.CodeOf(err) != attest.CodeNoTEE {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		hcl  func([]byte) []byte
		code attest.Code
	}{
		"VBS":            {set(1224, 1), attest.CodeNoTEE},
		"no HCL report":  {set(0, 'X'), attest.CodeAttesterFailed},
		"length too big": {set(8, 255, 255), attest.CodeAttesterFailed},
	} {
		conn, _ := provision(t, forge{hcl: c.hcl})
		if _, err := azure.NewAttester(tpm.NewDevice(conn), []int{7}, "", nil); attest.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	conn, _ := provision(t, forge{tdx: true})
	for name, c := range map[string]struct {
		pcrs []int
		log  string
		td   azure.QuoteTD
		code attest.Code
	}{
		"no log":          {[]int{1}, filepath.Join(t.TempDir(), "absent"), func(context.Context, []byte) ([]byte, error) { return nil, nil }, attest.CodeAttesterFailed},
		"no PCRs":         {nil, "", nil, attest.CodeSelection},
		"no quote of TDX": {[]int{1}, "", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("down") }, attest.CodeAttesterFailed},
	} {
		attester, err := azure.NewAttester(tpm.NewDevice(conn), c.pcrs, c.log, c.td)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := attester.Attest(t.Context(), reportData); attest.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A turn that does not come ends with the context.
func TestAttestWaits(t *testing.T) {
	t.Parallel()
	conn, _ := provision(t, forge{tdx: true})
	started, proceed := make(chan struct{}), make(chan struct{})
	attester, err := azure.NewAttester(tpm.NewDevice(conn), []int{1}, "", func(context.Context, []byte) ([]byte, error) {
		close(started)
		<-proceed
		return []byte{1}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := attester.Attest(context.Background(), reportData)
		done <- err
	}()
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := attester.Attest(ctx, reportData); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(proceed)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestQuoteThroughMetadataService(t *testing.T) {
	t.Parallel()
	var status int
	var answer string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var body map[string]string
		if err := json.Unmarshal(raw, &body); err != nil || r.Method != http.MethodPost || r.URL.Path != "/acc/tdquote" || r.Header.Get("Content-Type") != "application/json" || len(body) != 1 || body["report"] != "-_8" {
			t.Errorf("%s %s %s", r.Method, r.URL, raw)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	for name, c := range map[string]struct {
		status int
		answer string
		ok     bool
	}{
		"quote":     {200, `{"quote":"-_8"}`, true},
		"failure":   {429, `{"quote":"-_8"}`, false},
		"no quote":  {200, `{}`, false},
		"no base64": {200, `{"quote":"-_8A#"}`, false},
		"no JSON":   {200, `x`, false},
		"endless":   {200, `{"quote":"` + string(bytes.Repeat([]byte{'A'}, 1<<20)) + `"}`, false},
	} {
		status, answer = c.status, c.answer
		quote, err := azure.QuoteThrough(server.Client(), server.URL)(t.Context(), []byte{0xfb, 0xff})
		if (err == nil) != c.ok || c.ok && !bytes.Equal(quote, []byte{0xfb, 0xff}) {
			t.Errorf("%s: %x, %v", name, quote, err)
		}
	}
	if _, err := azure.QuoteThrough(server.Client(), "http://127.0.0.1:1")(t.Context(), []byte{1}); err == nil {
		t.Error("no service")
	}
	if _, err := azure.QuoteThrough(server.Client(), ":")(t.Context(), []byte{1}); err == nil {
		t.Error("no address")
	}
}
