package wellknown_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/wellknown"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sample() *wellknown.Document {
	d := &wellknown.Document{Nonce: bytes.Repeat([]byte{7}, 16), Connection: [32]byte{1}, Identity: [32]byte{2}}
	d.Session = cmw.Session{
		Evidence: &attest.Evidence{Format: "snp", Raw: []byte("report"), EventLog: []byte("log"), Endorsements: []attest.Endorsement{{Kind: attest.KindCertificate, Raw: []byte("leaf")}}},
		Config:   [32]byte{3}, Size: 2, Index: 1, Proof: []merkle.Hash{{4}},
	}
	return d
}

func marshal(t *testing.T, d *wellknown.Document) []byte {
	t.Helper()
	raw, err := wellknown.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := func(name string, low, high int) []byte { return rapid.SliceOfN(rapid.Byte(), low, high).Draw(t, name) }
		d := &wellknown.Document{Nonce: b("nonce", 16, 64), Connection: [32]byte(b("connection", 32, 32)), Identity: [32]byte(b("identity", 32, 32))}
		d.Session = cmw.Session{Evidence: &attest.Evidence{Format: "tdx", Raw: b("raw", 1, 50)}, Config: [32]byte(b("config", 32, 32)), Size: rapid.Uint64().Draw(t, "size"), Index: rapid.Uint64().Draw(t, "index")}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			d.Proof = append(d.Proof, merkle.Hash(b("hash", 32, 32)))
			d.Evidence.Endorsements = append(d.Evidence.Endorsements, attest.Endorsement{Kind: "crl", Raw: b("endorsement", 1, 9)})
		}
		raw, err := wellknown.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wellknown.Unmarshal(raw)
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Fatalf("%v\n%+v\n%+v", err, got, d)
		}
	})
}

// Each field that the hardware is said to sign changes what it signs.
func TestReportDataCommits(t *testing.T) {
	base, err := sample().ReportData()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*wellknown.Document){
		"nonce":      func(d *wellknown.Document) { d.Nonce[15]++ },
		"longer":     func(d *wellknown.Document) { d.Nonce = append(d.Nonce, 0) },
		"connection": func(d *wellknown.Document) { d.Connection[31]++ },
		"identity":   func(d *wellknown.Document) { d.Identity[31]++ },
		"swapped":    func(d *wellknown.Document) { d.Connection, d.Identity = d.Identity, d.Connection },
		"config":     func(d *wellknown.Document) { d.Config[0]++ },
		"size":       func(d *wellknown.Document) { d.Size, d.Index, d.Proof = 3, 1, append(d.Proof, merkle.Hash{5}) },
		"proof":      func(d *wellknown.Document) { d.Proof[0][0]++ },
	} {
		d := sample()
		change(d)
		if got, err := d.ReportData(); err != nil || got == base {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := sample()
	d.Index = 2
	if _, err := d.ReportData(); attest.CodeOf(err) != attest.CodeMalformed {
		t.Error(err)
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	good := string(marshal(t, sample()))
	many := sample()
	many.Proof = make([]merkle.Hash, 65)
	endorsed := sample()
	endorsed.Evidence.Endorsements = make([]attest.Endorsement, attest.MaxEndorsements+1)
	short := sample()
	short.Nonce = short.Nonce[:15]
	long := sample()
	long.Nonce = make([]byte, 65)
	for name, c := range map[string]struct {
		in   string
		want attest.Code
	}{
		"empty":            {"", attest.CodeMalformed},
		"trailing":         {good + "{}", attest.CodeMalformed},
		"unknown key":      {strings.Replace(good, `"tree"`, `"more":1,"tree"`, 1), attest.CodeMalformed},
		"twice":            {strings.Replace(good, `"tree"`, `"eat_profile":"jurat-wellknown-1","tree"`, 1), attest.CodeMalformed},
		"another case":     {strings.Replace(good, `"tree"`, `"Tree"`, 1), attest.CodeMalformed},
		"another profile":  {strings.Replace(good, "wellknown-1", "wellknown-2", 1), attest.CodeUnknownFormat},
		"short nonce":      {string(marshal(t, short)), attest.CodeMalformed},
		"long nonce":       {string(marshal(t, long)), attest.CodeMalformed},
		"no connection":    {strings.Replace(good, `"connection_spki_sha256":"AQ`, `"connection_spki_sha256":"","was":"`, 1), attest.CodeMalformed},
		"short connection": {strings.Replace(good, `"connection_spki_sha256":"AQA`, `"connection_spki_sha256":"AQ`, 1), attest.CodeMalformed},
		"long connection":  {strings.Replace(good, `"connection_spki_sha256":"AQA`, `"connection_spki_sha256":"AQAA`, 1), attest.CodeMalformed},
		"short identity":   {strings.Replace(good, `"identity_spki_sha256":"AgA`, `"identity_spki_sha256":"Ag`, 1), attest.CodeMalformed},
		"short config":     {strings.Replace(good, `"config_sha256":"AwA`, `"config_sha256":"Aw`, 1), attest.CodeMalformed},
		"short digest":     {strings.Replace(good, `"config_sha256":"AwAA`, `"config_sha256":"`, 1), attest.CodeMalformed},
		"padding":          {strings.Replace(good, `"raw":"bGVhZg"`, `"raw":"bGVhZg=="`, 1), attest.CodeMalformed},
		"spare bits":       {strings.Replace(good, `"raw":"bGVhZg"`, `"raw":"bGVhZh"`, 1), attest.CodeMalformed},
		"line break":       {strings.Replace(good, `"raw":"bGVhZg"`, `"raw":"bG\nVhZg"`, 1), attest.CodeMalformed},
		"short hash":       {strings.Replace(good, `"proof":["BAAA`, `"proof":["`, 1), attest.CodeMalformed},
		"long proof":       {string(marshal(t, many)), attest.CodeMalformed},
		"endorsements":     {string(marshal(t, endorsed)), attest.CodeMalformed},
		"oversized":        {good + strings.Repeat(" ", wellknown.MaxSize), attest.CodeOversized},
	} {
		if _, err := wellknown.Unmarshal([]byte(c.in)); attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	large := sample()
	large.Evidence.Raw = make([]byte, wellknown.MaxSize)
	if _, err := wellknown.Marshal(large); attest.CodeOf(err) != attest.CodeOversized {
		t.Error(err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	raw, err := wellknown.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := wellknown.Unmarshal(raw)
		if err != nil {
			if attest.CodeOf(err) == attest.CodeInternal {
				t.Fatal(err)
			}
			return
		}
		_, _ = d.ReportData()
		if _, err := wellknown.Marshal(d); err != nil && attest.CodeOf(err) != attest.CodeOversized {
			t.Fatal(err)
		}
	})
}

func TestNonce(t *testing.T) {
	nonce := bytes.Repeat([]byte{0xfb}, 16)
	got, err := wellknown.Nonce(wellknown.Query(nonce))
	if err != nil || !bytes.Equal(got, nonce) {
		t.Fatal(got, err)
	}
	for _, query := range []string{
		"", "nonce=", "nonce", "n=1", wellknown.Query(nonce) + "&x=1", wellknown.Query(nonce) + "&" + wellknown.Query(nonce), wellknown.Query(nonce[:15]),
		wellknown.Query(make([]byte, 65)), wellknown.Query(nonce) + "=", "nonce=%zz", wellknown.Query(nonce) + "&%zz", wellknown.Query(make([]byte, 18)) + "!", "nonce=" + strings.Repeat("+", 24), "nonce=AAAAAAAAAAAAAAAAAAAAAAA%0A",
	} {
		if _, err := wellknown.Nonce(query); err == nil {
			t.Errorf("%q is taken", query)
		}
	}
}

func FuzzNonce(f *testing.F) {
	f.Add("nonce=AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, query string) {
		if nonce, err := wellknown.Nonce(query); err == nil && (len(nonce) < wellknown.MinNonce || len(nonce) > wellknown.MaxNonce) {
			t.Fatal(len(nonce))
		}
	})
}

func TestLimit(t *testing.T) {
	now := time.Unix(1000, 0)
	l := wellknown.NewLimit(func() time.Time { return now })
	for i := range 10 {
		if w := l.Take("a"); w != 0 {
			t.Fatalf("request %d has to wait %s", i, w)
		}
	}
	if w := l.Take("a"); w != time.Second {
		t.Fatal(w)
	}
	if w := l.Take("b"); w != 0 {
		t.Fatal("one peer holds up another")
	}
	now = now.Add(time.Second)
	if l.Take("a") != 0 || l.Take("a") == 0 {
		t.Fatal("a second is worth one request")
	}
	// Many peers together.
	now = now.Add(time.Hour)
	for i := range 40 {
		if w := l.Take(strconv.Itoa(i)); w != 0 {
			t.Fatalf("request %d has to wait %s", i, w)
		}
	}
	if w := l.Take("x"); w != 50*time.Millisecond {
		t.Fatal(w)
	}
	for i := range 10000 { // strangers can't make it grow
		now = now.Add(50 * time.Millisecond)
		if l.Take(strconv.Itoa(i)) != 0 || l.Peers() > wellknown.MaxPeers {
			t.Fatal(i, l.Peers())
		}
	}
	for i := 0; l.Peers() < wellknown.MaxPeers-2; i++ {
		now = now.Add(50 * time.Millisecond)
		l.Take("more " + strconv.Itoa(i))
	}
	for range 10 { // and whoever has just had his share is not forgotten for them
		now = now.Add(50 * time.Millisecond)
		l.Take("z")
	}
	now = now.Add(200 * time.Millisecond)
	if l.Take("one more") != 0 || l.Take("last") != 0 || l.Peers() > 100 || l.Take("z") == 0 {
		t.Fatal(l.Peers())
	}
}

// Everything but the document itself, from the one place that was asked, is refused.
func TestGet(t *testing.T) {
	nonce := bytes.Repeat([]byte{7}, 16)
	body := string(marshal(t, sample()))
	ok := func(head, body string) string { return "HTTP/1.1 200 OK\r\n" + head + "\r\n" + body }
	for name, c := range map[string]struct {
		answer string
		want   attest.Code
	}{
		"document":     {ok("Content-Type: application/json\r\n", body), ""},
		"charset":      {ok("Content-Type: application/json; charset=utf-8\r\n", body), ""},
		"redirect":     {"HTTP/1.1 302 Found\r\nLocation: https://other.example/.well-known/attestation\r\nContent-Type: application/json\r\n\r\n" + body, attest.CodeNoEvidence},
		"not found":    {"HTTP/1.1 404 Not Found\r\n\r\n", attest.CodeNoEvidence},
		"crowded":      {"HTTP/1.1 429 Too Many Requests\r\n\r\n", attest.CodeCrowded},
		"behind":       {"HTTP/1.1 503 Service Unavailable\r\n\r\n", attest.CodeCrowded},
		"html":         {ok("Content-Type: text/html\r\n", body), attest.CodeNoEvidence},
		"no type":      {ok("", body), attest.CodeNoEvidence},
		"huge body":    {ok("Content-Type: application/json\r\n", body+strings.Repeat(" ", wellknown.MaxSize)), attest.CodeOversized},
		"huge head":    {ok("X: "+strings.Repeat("x", 1<<20)+"\r\n", body), attest.CodeNoEvidence},
		"not HTTP":     {"SSH-2.0-x\r\n", attest.CodeNoEvidence},
		"nothing":      {"", attest.CodeNoEvidence},
		"broken off":   {ok("Content-Type: application/json\r\nContent-Length: 9999\r\n", body), attest.CodeNoEvidence},
		"not a object": {ok("Content-Type: application/json\r\n", "[]"), attest.CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			asked := make(chan string, 1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer far.Close()
				b := make([]byte, 4096)
				n, _ := far.Read(b)
				asked <- string(b[:n])
				_, _ = io.WriteString(far, c.answer)
			}()
			d, err := wellknown.Get(t.Context(), near, "a.example:8443", nonce)
			near.Close()
			<-done
			if attest.CodeOf(err) != c.want || (err == nil) != (d != nil) {
				t.Fatalf("%v, want %s", err, c.want)
			}
			if req := <-asked; !strings.HasPrefix(req, "GET /.well-known/attestation?nonce=BwcHBwcHBwcHBwcHBwcHBw HTTP/1.1\r\nHost: a.example:8443\r\n") {
				t.Errorf("%q", req)
			}
		})
	}
}

func TestGetOfNoHost(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	defer near.Close()
	if _, err := wellknown.Get(t.Context(), near, "a b", make([]byte, 16)); attest.CodeOf(err) != attest.CodeNoEvidence {
		t.Error(err)
	}
}

func TestGetDoesNotWaitForever(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer far.Close()
		_, _ = far.Read(make([]byte, 4096))
		_, _ = io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
		cancel() // in the middle of the body
		_, _ = io.ReadAll(far)
	}()
	if _, err := wellknown.Get(ctx, near, "a.example", make([]byte, 16)); attest.CodeOf(err) != attest.CodeTimeout {
		t.Error(err)
	}
	near.Close()
	<-done
}

// The names in the document are a contract.
func TestNames(t *testing.T) {
	var names map[string]json.RawMessage
	if err := json.Unmarshal(marshal(t, sample()), &names); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eat_profile", "eat_nonce", "connection_spki_sha256", "identity_spki_sha256", "config_sha256", "tree", "evidence"} {
		if names[name] == nil {
			t.Errorf("no %s", name)
		}
	}
}
