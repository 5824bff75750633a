package sim_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
)

const identityPath = "/tdx/certification/v4/qe/identity"

func TestFaults(t *testing.T) {
	t.Parallel()
	m := opened(t, "sim:tdx,status=OutOfDate,qe-status=OutOfDate")
	f := sim.NewFaults(m.Service())
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ask := func(ctx context.Context) (*http.Response, []byte, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+identityPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			return nil, nil, err
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		return resp, raw, err
	}
	answer := func(fault sim.Fault) (*http.Response, []byte) {
		t.Helper()
		f.Set(fault)
		r, raw, err := ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r, raw
	}
	_, good, err := ask(t.Context())
	if err != nil || !bytes.HasPrefix(good, []byte(`{"enclaveIdentity":`)) {
		t.Fatal(string(good), err)
	}
	if r, _ := answer(sim.Down); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("down: %d", r.StatusCode)
	}
	if r, _ := answer(sim.Limit(90 * time.Second)); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "90" {
		t.Errorf("limit: %d, %v", r.StatusCode, r.Header)
	}
	if r, _ := answer(sim.Redirect("https://elsewhere.invalid")); r.StatusCode != http.StatusFound || r.Header.Get("Location") != "https://elsewhere.invalid"+identityPath {
		t.Errorf("redirect: %d, %v", r.StatusCode, r.Header)
	}
	if _, raw := answer(sim.Oversized(1 << 20)); len(raw) != 1<<20 {
		t.Errorf("oversized: %d bytes", len(raw))
	}
	if r, raw := answer(sim.Wrong); r.StatusCode != http.StatusOK || !bytes.HasPrefix(raw, []byte("<html>")) {
		t.Errorf("wrong: %d, %s", r.StatusCode, raw)
	}
	f.Set(sim.Truncated)
	if _, raw, err := ask(t.Context()); err == nil || len(raw) == 0 || len(raw) >= len(good) {
		t.Errorf("truncated: %d bytes, %v", len(raw), err)
	}
	f.Set(sim.Slow(nil))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := ask(ctx); err == nil {
		t.Error("slow: an answer")
	}
	release := make(chan struct{})
	close(release)
	if _, raw := answer(sim.Slow(release)); !bytes.Equal(raw, good) {
		t.Errorf("released: %s", raw)
	}
	if _, raw := answer(nil); !bytes.Equal(raw, good) {
		t.Errorf("mended: %s", raw)
	}
	if f.Requests() != 10 {
		t.Errorf("%d requests", f.Requests())
	}
}

// A twin of the signed key never gets a better status than what is signed.
func TestTwinKeys(t *testing.T) {
	t.Parallel()
	m := opened(t, "sim:tdx,status=OutOfDate")
	f := sim.NewFaults(m.Service())
	v, ev := sim.NewVerifier([]string{m.Root()}), rootOnly(t, evidenceOf(t, m))
	if c, err := v.Verify(t.Context(), ev, overHTTP{f}, now); err != nil || c.TCBStatus != "OutOfDate" {
		t.Fatal(c, err)
	}
	w := httptest.NewRecorder()
	f.Set(sim.TwinKeys)
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/tdx/certification/v4/tcb?fmspc=b0c06f000000", nil))
	if raw := w.Body.Bytes(); !bytes.Contains(raw, []byte(`,"TCBINFO":{"id":"TDX"`)) || bytes.Count(raw, []byte("OutOfDate")) == 0 || raw[len(raw)-1] != '}' {
		t.Fatalf("%s", raw)
	}
	if c, err := v.Verify(t.Context(), ev, overHTTP{f}, now); attest.CodeOf(err) != attest.CodeMalformedEndorsement {
		t.Error(c, err)
	}
	w = httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/IntelSGXRootCA.der", nil)) // no JSON
	if !bytes.Equal(w.Body.Bytes(), body(t, get(t, m, "/IntelSGXRootCA.der"))) {
		t.Error("a list was changed")
	}
}
