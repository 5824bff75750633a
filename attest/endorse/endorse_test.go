package endorse_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

var simulated = sync.OnceValues(func() (*sim.Platform, error) { return sim.New(sim.Config{Now: clock}) })

func platform(t *testing.T) *sim.Platform {
	t.Helper()
	p, err := simulated()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// server is a fake service that counts requests and can misbehave.
type server struct {
	*httptest.Server
	requests atomic.Int64
	handle   atomic.Pointer[http.HandlerFunc]
}

func serve(t *testing.T, h http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.handle.Store(&h)
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		(*s.handle.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// most is the source of jitter that waits longest.
func most() float64 { return 1 }

func (s *server) kds(t *testing.T, dir string, at func() time.Time) *endorse.Service {
	t.Helper()
	hosts := endorse.Hosts{AMD: s.URL, Intel: s.URL}
	k, err := endorse.New(hosts, dir, endorse.WithClient(s.Client()), endorse.WithClock(at), endorse.WithRandom(most))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ref(path string, kind attest.Kind) attest.Ref {
	return attest.Ref{Service: snp.KDSService, Path: path, Kind: kind}
}

var (
	chainRef = ref("/vcek/v1/Genoa/cert_chain", attest.KindCertificate)
	crlRef   = ref("/vcek/v1/Genoa/crl", attest.KindCRL)
)

func leafRef(t *testing.T) attest.Ref {
	t.Helper()
	ev, err := platform(t).Attest(t.Context(), attest.ReportData{1})
	if err != nil {
		t.Fatal(err)
	}
	refs, err := snp.LeafRefs(ev.Raw)
	if err != nil || len(refs) != 1 {
		t.Fatal(refs, err)
	}
	return refs[0]
}

func TestKDSSuppliesAWholeChain(t *testing.T) {
	t.Parallel()
	p := platform(t)
	s := serve(t, p.KDS().ServeHTTP)
	k := s.kds(t, t.TempDir(), clock)
	ev, err := p.Attest(t.Context(), attest.ReportData{1})
	if err != nil {
		t.Fatal(err)
	}
	roots, err := snp.NewRoots(snp.Root{Generation: "genoa", ARK: p.ARK()})
	if err != nil {
		t.Fatal(err)
	}
	bare := &attest.Evidence{Format: snp.Format, Raw: ev.Raw}
	c, err := snp.NewVerifier(roots).Verify(t.Context(), bare, k, now)
	if err != nil || c.Revocation.Problem != nil {
		t.Fatal(c, err)
	}
	full, err := snp.Staple(t.Context(), bare, k)
	if err != nil || len(full.Endorsements) != 3 || len(bare.Endorsements) != 0 {
		t.Fatalf("%d endorsements stapled, %v", len(full.Endorsements), err)
	}
	if got := s.requests.Load(); got != 3 { // leaf, chain, list; the second round comes from the cache
		t.Errorf("%d requests", got)
	}
	if c, err := snp.NewVerifier(roots).Verify(t.Context(), full, nil, now); err != nil || c.Revocation.Problem != nil {
		t.Fatal(c, err)
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	p := platform(t)
	s := serve(t, p.KDS().ServeHTTP)
	dir := t.TempDir()
	at := now
	var mu sync.Mutex
	later := func(d time.Duration) { mu.Lock(); at = at.Add(d); mu.Unlock() }
	tick := func() time.Time { mu.Lock(); defer mu.Unlock(); return at }
	ask := func(k *endorse.Service, r attest.Ref, requests int64) {
		t.Helper()
		list, err := k.Endorse(t.Context(), r)
		if err != nil || len(list) == 0 {
			t.Fatal(list, err)
		}
		if got := s.requests.Load(); got != requests {
			t.Fatalf("%d requests, want %d", got, requests)
		}
	}
	k := s.kds(t, dir, tick)
	ask(k, chainRef, 1)
	ask(k, chainRef, 1)
	ask(k, crlRef, 2)
	ask(k, crlRef, 2)
	again := s.kds(t, dir, tick) // another process
	ask(again, chainRef, 2)
	ask(again, crlRef, 2)
	later(25 * time.Hour)
	ask(again, chainRef, 2)
	ask(again, crlRef, 3) // a day old: renewed
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	s.handle.Store(&down)
	later(25 * time.Hour)
	ask(again, crlRef, 4) // cannot be renewed, but is still valid
	ask(again, crlRef, 4) // and the failure is remembered
	later(40 * 24 * time.Hour)
	if _, err := again.Endorse(t.Context(), crlRef); attest.CodeOf(err) != attest.CodeEndorserUnreachable {
		t.Errorf("expired list: %v", err)
	}
	later(26 * 365 * 24 * time.Hour)
	if _, err := again.Endorse(t.Context(), chainRef); attest.CodeOf(err) != attest.CodeEndorserUnreachable {
		t.Errorf("expired chain: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatal(entries, err)
	}
	for _, e := range entries { // a spoilt cache is as good as none
		if err := os.WriteFile(filepath.Join(dir, e.Name()), []byte("junk"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := http.HandlerFunc(p.KDS().ServeHTTP)
	s.handle.Store(&h)
	s.requests.Store(0)
	ask(s.kds(t, dir, clock), chainRef, 1)
}

func TestFaults(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, platform(t).KDS().ServeHTTP)
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		code   attest.Code
	}{
		"not there":  {http.NotFound, attest.CodeEndorsementMissing},
		"rate limit": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, attest.CodeEndorserRefused},
		"forbidden":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, attest.CodeEndorserRefused},
		"broken":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, attest.CodeEndorserUnreachable},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
		}, attest.CodeEndorserUnreachable},
		"empty":   {func(http.ResponseWriter, *http.Request) {}, attest.CodeEndorserUnreachable},
		"junk":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, attest.CodeEndorserUnreachable},
		"endless": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }, attest.CodeEndorserUnreachable},
		"truncated": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10000")
			_, _ = w.Write(platform(t).ARK())
		}, attest.CodeEndorserUnreachable},
		"oversized": {func(w http.ResponseWriter, _ *http.Request) {
			_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: platform(t).ARK()})
			_, _ = w.Write(bytes.Repeat([]byte("\n"), attest.MaxEndorsement))
		}, attest.CodeEndorserUnreachable},
		"a list for a certificate": {func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = crlRef.Path
			platform(t).KDS().ServeHTTP(w, r)
		}, attest.CodeEndorserUnreachable},
		"a list too": {func(w http.ResponseWriter, _ *http.Request) {
			_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: platform(t).ARK()})
			_ = pem.Encode(w, &pem.Block{Type: "X509 CRL", Bytes: pcs(t).RootCRL})
		}, attest.CodeEndorserUnreachable},
		"many certificates": {func(w http.ResponseWriter, _ *http.Request) {
			for range attest.MaxEndorsements + 1 {
				_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: platform(t).ARK()})
			}
		}, attest.CodeEndorserUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, c.handle)
			at := now
			k := s.kds(t, "", func() time.Time { return at })
			for range 2 { // the second time the failure is remembered
				list, err := k.Endorse(t.Context(), chainRef)
				if attest.CodeOf(err) != c.code || list != nil {
					t.Fatalf("%v, %v", list, err)
				}
			}
			if got := s.requests.Load(); got != 1 {
				t.Errorf("%d requests", got)
			}
			at = at.Add(time.Hour)
			if _, err := k.Endorse(t.Context(), chainRef); err == nil || s.requests.Load() != 2 {
				t.Errorf("%v after %d requests: failures are remembered for ever", err, s.requests.Load())
			}
		})
	}
	if elsewhere.requests.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "300")
		w.WriteHeader(429)
	})
	at := now
	k := s.kds(t, "", func() time.Time { return at })
	for i, step := range []time.Duration{0, 4 * time.Minute, 2 * time.Minute} {
		at = at.Add(step)
		if _, err := k.Endorse(t.Context(), chainRef); attest.CodeOf(err) != attest.CodeEndorserRefused {
			t.Fatal(err)
		}
		if got, want := s.requests.Load(), int64(1+i/2); got != want {
			t.Errorf("%d requests, want %d", got, want)
		}
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	k := s.kds(t, "", clock)
	s.Close()
	if _, err := k.Endorse(t.Context(), chainRef); attest.CodeOf(err) != attest.CodeEndorserUnreachable || strings.Contains(err.Error(), "Get ") {
		t.Fatal(err)
	}
}

// transport answers requests without a network.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestOneRequestForMany(t *testing.T) {
	t.Parallel()
	body := platform(t).ARK()
	synctest.Test(t, func(t *testing.T) {
		release, requests := make(chan struct{}), 0
		k, err := endorse.New(endorse.Hosts{}, "", endorse.WithClock(clock), endorse.WithClient(&http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			requests++
			<-release
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body))}, nil
		})}))
		if err != nil {
			t.Fatal(err)
		}
		impatient, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() {
			_, err := k.Endorse(impatient, chainRef)
			gaveUp <- err
		}()
		answers := make(chan error, 8)
		for range cap(answers) {
			go func() {
				_, err := k.Endorse(t.Context(), chainRef)
				answers <- err
			}()
		}
		synctest.Wait()
		cancel() // one who gives up does not take the others with it
		if err := <-gaveUp; !errors.Is(err, context.Canceled) || attest.CodeOf(err) != attest.CodeEndorserUnreachable {
			t.Error(err)
		}
		close(release)
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if requests != 1 {
			t.Errorf("%d requests", requests)
		}
	})
}

func TestRequestsEnd(t *testing.T) {
	t.Parallel()
	for name, patience := range map[string]time.Duration{"when the last gives up": time.Second, "by themselves": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := false
				k, err := endorse.New(endorse.Hosts{}, "", endorse.WithClock(clock), endorse.WithClient(&http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
					<-r.Context().Done()
					ended = true
					return nil, r.Context().Err()
				})}))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				start := time.Now()
				if _, err := k.Endorse(ctx, chainRef); attest.CodeOf(err) != attest.CodeEndorserUnreachable {
					t.Error(err)
				}
				synctest.Wait()
				if !ended || time.Since(start) > time.Minute {
					t.Errorf("the request goes on after %v", time.Since(start))
				}
			})
		})
	}
}

func TestRefusesForeignRequests(t *testing.T) {
	t.Parallel()
	s := serve(t, platform(t).KDS().ServeHTTP)
	k := s.kds(t, "", clock)
	for _, r := range []attest.Ref{
		{Service: "intel-pcs", Path: chainRef.Path, Kind: attest.KindCertificate},
		ref("", attest.KindCertificate), ref("vcek/v1", attest.KindCertificate), ref("//evil/v1", attest.KindCertificate),
		ref("/../etc", attest.KindCertificate), ref("/vcek/v1/Genoa/crl#x", attest.KindCRL), ref("/a@b", attest.KindCRL), ref("/%2e", attest.KindCRL),
		ref("/"+strings.Repeat("a", 600), attest.KindCRL),
	} {
		if _, err := k.Endorse(t.Context(), r); attest.CodeOf(err) != attest.CodeEndorsementMissing {
			t.Errorf("%v: %v", r, err)
		}
	}
	if s.requests.Load() != 0 {
		t.Error("the service was asked")
	}
	for _, base := range []string{"http://kds.example", "https://", "kds.example", "https://u:p@h", "https://h?x", "ftp://h", "http://10.0.0.1", "https://h#x", "ftp://127.0.0.1", "https://h\x7f", "https://h:port"} {
		for _, hosts := range []endorse.Hosts{{AMD: base}, {Intel: base}, {IntelRootCRL: base}} {
			if _, err := endorse.New(hosts, ""); attest.CodeOf(err) != attest.CodeConfigValue {
				t.Errorf("%v: %v", hosts, err)
			}
		}
	}
	for _, base := range []string{"", "https://mirror.example/amd/", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost"} {
		if _, err := endorse.New(endorse.Hosts{AMD: base, Intel: base, IntelRootCRL: base}, ""); err != nil {
			t.Errorf("%s: %v", base, err)
		}
	}
	official, err := endorse.New(endorse.Hosts{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := official.Endorse(t.Context(), attest.Ref{Service: sim.KDSService, Path: chainRef.Path, Kind: attest.KindCertificate}); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Errorf("AMD asked about a simulated chip: %v", err)
	}
	if _, err := k.Endorse(t.Context(), attest.Ref{Service: sim.KDSService, Path: chainRef.Path, Kind: attest.KindCertificate}); err != nil {
		t.Errorf("a mirror does not serve the simulation: %v", err)
	}
}

func TestStatic(t *testing.T) {
	t.Parallel()
	p := platform(t)
	ev, err := p.Attest(t.Context(), attest.ReportData{1})
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.With(sim.Config{TCB: attest.TCB{"snp": 1}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	older, err := other.Attest(t.Context(), attest.ReportData{1})
	if err != nil {
		t.Fatal(err)
	}
	leaf, ask, ark, crl := ev.Endorsements[0], ev.Endorsements[1], ev.Endorsements[2], ev.Endorsements[3]
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("older.der", older.Endorsements[0].Raw)
	write("leaf.der", leaf.Raw)
	write("list.crl", crl.Raw)
	write("chain.pem", append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ask.Raw}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ark.Raw})...))
	s, err := endorse.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ref  attest.Ref
		want []byte
	}{{leafRef(t), leaf.Raw}, {chainRef, ask.Raw}, {crlRef, crl.Raw}} {
		list, err := s.Endorse(t.Context(), c.ref)
		if err != nil || len(list) != 1 || string(list[0].Raw) != string(c.want) {
			t.Errorf("%s: %d, %v", c.ref.Path, len(list), err)
		}
	}
	for _, r := range []attest.Ref{
		ref("/vcek/v1/Milan/crl", attest.KindCRL), ref("/vlek/v1/Genoa/cert_chain", attest.KindCertificate), ref("/vcek/v1/Genoa/00", attest.KindCertificate),
		ref(strings.Replace(leafRef(t).Path, "Genoa", "Milan", 1), attest.KindCertificate), ref(strings.Replace(leafRef(t).Path, "vcek", "vlek", 1), attest.KindCertificate),
		ref(strings.Replace(leafRef(t).Path, "blSPL", "xxSPL", 1), attest.KindCertificate), ref(chainRef.Path, attest.KindCRL),
		ref(crlRef.Path, attest.KindCertificate), ref("x", attest.KindCRL), ref("/x", attest.KindCRL),
	} {
		if _, err := s.Endorse(t.Context(), r); attest.CodeOf(err) != attest.CodeEndorsementMissing {
			t.Errorf("%v: %v", r, err)
		}
	}
	roots, err := snp.NewRoots(snp.Root{Generation: "genoa", ARK: p.ARK()})
	if err != nil {
		t.Fatal(err)
	}
	bare := &attest.Evidence{Format: snp.Format, Raw: ev.Raw}
	if _, err := snp.NewVerifier(roots).Verify(t.Context(), bare, endorse.Chain{attest.NoEndorser{}, s}, now); err != nil {
		t.Error(err)
	}
	opened := map[string]struct {
		code attest.Code
		text string
	}{
		"absent": {attest.CodeConfigValue, "no such file"}, "junk": {attest.CodeMalformedEndorsement, "neither"}, "empty": {attest.CodeMalformedEndorsement, "neither"},
		"key": {attest.CodeMalformedEndorsement, "PRIVATE KEY"}, "oversized": {attest.CodeOversized, "at most"},
	}
	for name, path := range map[string]string{
		"absent":    filepath.Join(dir, "absent"),
		"junk":      write("junk", []byte("junk")),
		"empty":     write("empty", nil),
		"key":       write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})),
		"oversized": write("big", append(bytes.Repeat([]byte("\n"), endorse.MaxBundle), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ark.Raw})...)),
	} {
		_, err := endorse.Open(path)
		if want := opened[name]; attest.CodeOf(err) != want.code || !strings.Contains(err.Error(), want.text) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	full := t.TempDir()
	for i := range 1025 {
		if err := os.WriteFile(filepath.Join(full, fmt.Sprint(i)), ark.Raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := endorse.Open(full); attest.CodeOf(err) != attest.CodeOversized {
		t.Errorf("too many files: %v", err)
	}
	for _, name := range []string{"0", "1", "2", "3"} {
		if err := os.Remove(filepath.Join(full, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(full, ".hidden"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(full, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := endorse.Open(full); err != nil {
		t.Errorf("hidden files and directories: %v", err)
	}
	if err := os.WriteFile(filepath.Join(full, "3"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := endorse.Open(full); attest.CodeOf(err) != attest.CodeMalformedEndorsement {
		t.Errorf("junk in a directory: %v", err)
	}
}

// Some of AMD's certificates wrap the chip id into one more OCTET STRING.
func TestStaticFindsAWrappedChipID(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := bytes.Repeat([]byte{0xab}, 64)
	for name, value := range map[string][]byte{"bare": id, "wrapped": append([]byte{0x04, 0x40}, id...)} {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "SEV-VCEK"}, ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 4}, Value: value},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 1}, Value: []byte{2, 1, 7}},
		}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, &x509.Certificate{Subject: pkix.Name{CommonName: "SEV-Genoa"}}, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		s := endorse.NewStatic(certificate(der))
		path := "/vcek/v1/Genoa/" + strings.Repeat("ab", 64)
		if _, err := s.Endorse(t.Context(), ref(path+"?blSPL=07", attest.KindCertificate)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, other := range []string{path + "?blSPL=08", path + "?blSPL=x", path + "?blSPL=07&snpSPL=00", strings.Replace(path, "ab", "ac", 1)} {
			if _, err := s.Endorse(t.Context(), ref(other, attest.KindCertificate)); attest.CodeOf(err) != attest.CodeEndorsementMissing {
				t.Errorf("%s: %s: %v", name, other, err)
			}
		}
	}
}

func TestChain(t *testing.T) {
	t.Parallel()
	down := fails(attest.CodeEndorserUnreachable)
	missing := fails(attest.CodeEndorsementMissing)
	for name, c := range map[string]struct {
		chain endorse.Chain
		code  attest.Code
	}{
		"nobody":           {nil, attest.CodeEndorsementMissing},
		"first down":       {endorse.Chain{down, missing}, attest.CodeEndorserUnreachable},
		"last down":        {endorse.Chain{missing, down, missing}, attest.CodeEndorserUnreachable},
		"second has it":    {endorse.Chain{down, platform(t).Endorser()}, ""},
		"nobody has it":    {endorse.Chain{missing, missing}, attest.CodeEndorsementMissing},
		"nothing at hand":  {endorse.Chain{endorse.NewStatic()}, attest.CodeEndorsementMissing},
		"offline, and KDS": {endorse.Chain{endorse.NewStatic(), down}, attest.CodeEndorserUnreachable},
	} {
		if _, err := c.chain.Endorse(t.Context(), crlRef); attest.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type fails attest.Code

func (f fails) Endorse(context.Context, attest.Ref) ([]attest.Endorsement, error) {
	return nil, &attest.Error{Code: attest.Code(f)}
}
