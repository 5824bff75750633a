package sim_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/attest/tdx"
)

// tees are all that can be simulated.
var tees = []string{"snp", "tdx", "sgx", "tpm", "azure-snp"}

// azureSNP is one machine for all tests: RSA keys are slow to make.
var azureSNP = sync.OnceValues(func() (sim.Machine, error) { return sim.Open("sim:azure-snp", "", clock) })

func opened(t *testing.T, spec string) sim.Machine {
	t.Helper()
	if spec == "sim:snp" {
		return platform(t, sim.Config{})
	}
	open := func() (sim.Machine, error) { return sim.Open(spec, "", clock) }
	if spec == "sim:azure-snp" {
		open = azureSNP
	}
	m, err := open()
	if err != nil {
		t.Fatal(spec, err)
	}
	return m
}

func evidenceOf(t *testing.T, m sim.Machine) *attest.Evidence {
	t.Helper()
	ev, err := m.Attest(t.Context(), data)
	if err != nil {
		t.Fatal(m, err)
	}
	return ev
}

func TestEveryTEE(t *testing.T) {
	t.Parallel()
	for _, tee := range tees {
		t.Run(tee, func(t *testing.T) {
			t.Parallel()
			m := opened(t, "sim:"+tee)
			ev := evidenceOf(t, m)
			if ev.Format != attest.Format("sim-"+tee) {
				t.Errorf("format %s", ev.Format)
			}
			if root, err := sim.RootOf(ev); err != nil || root != m.Root() {
				t.Errorf("RootOf: %q, %v", root, err)
			}
			if s := m.String(); !strings.HasPrefix(s, "SIMULATED ") || !strings.Contains(s, m.Root()) {
				t.Errorf("%s", s)
			}
			c, err := verify(t, ev, m.Root())
			if err != nil {
				t.Fatal(err)
			}
			signed := data
			if c.Folded {
				signed = data.Fold()
			}
			if c.Vendor != "sim" || !c.Simulated || c.TEE != strings.TrimPrefix(tee, "azure-") || !strings.HasPrefix(c.Product, "SIMULATED ") || c.Root != m.Root() || c.ReportData != signed || c.Revocation.Problem != nil {
				t.Errorf("%+v", c)
			}
			if c.Checks[0].ID != "authenticity.simulated" || !strings.Contains(c.NotChecked[0], "SIMULATED") {
				t.Errorf("%v, %v", c.Checks[0], c.NotChecked[0])
			}
			size := len(ev.Raw)
			for _, e := range ev.Endorsements {
				size += len(e.Raw)
			}
			if size > 12<<10 || len(ev.Endorsements) > 8 {
				t.Errorf("%d bytes in %d endorsements and the evidence: more than a 13 KB Certificate message bears", size, len(ev.Endorsements))
			}
			for name, roots := range map[string][]string{"none": nil, "another": {"sha256:" + strings.Repeat("0", 64)}, "empty": {""}} {
				_, err := verify(t, ev, roots...)
				var coded *attest.Error
				if !errors.As(err, &coded) || coded.Code != attest.CodeSimulated || !strings.Contains(coded.Got, m.Root()) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := m.Attest(t.Context(), attest.ReportData{}); attest.CodeOf(err) != attest.CodeNoExpectation {
				t.Errorf("zero report data: %v", err)
			}
			empty := *ev
			empty.Endorsements = nil
			if _, err := verify(t, &empty, m.Root()); attest.CodeOf(err) != attest.CodeEndorsementMissing {
				t.Errorf("no root: %v", err)
			}
			twice := *ev
			twice.Endorsements = append(ev.Endorsements[:len(ev.Endorsements):len(ev.Endorsements)], ev.Endorsements...)
			if _, err := verify(t, &twice, m.Root()); attest.CodeOf(err) != attest.CodeChain {
				t.Errorf("two roots: %v", err)
			}
			junk := *ev
			junk.Endorsements = []attest.Endorsement{{Kind: attest.KindCertificate, Raw: []byte("junk")}}
			if _, err := sim.RootOf(&junk); attest.CodeOf(err) != attest.CodeMalformedEndorsement {
				t.Errorf("junk for a certificate: %v", err)
			}
		})
	}
	for _, ev := range []*attest.Evidence{nil, {Format: "sim-"}, {Format: "sim-nonsense"}, {Format: snp.Format}} {
		if _, err := verify(t, ev); !errors.Is(err, attest.ErrNotMine) {
			t.Errorf("%v: %v", ev, err)
		}
		if _, err := sim.RootOf(ev); !errors.Is(err, attest.ErrNotMine) {
			t.Errorf("%v: %v", ev, err)
		}
	}
}

// Evidence of one TEE is refused as that of another, whatever roots are named, and as that of hardware.
func TestTEEsAreKeptApart(t *testing.T) {
	t.Parallel()
	machines := map[string]sim.Machine{}
	var roots []string
	for _, tee := range tees {
		machines[tee] = opened(t, "sim:"+tee)
		roots = append(roots, machines[tee].Root())
	}
	v := sim.NewVerifier(roots)
	hardware := attest.NewAppraiser(attest.NoEndorser{}, snp.NewVerifier(snp.AMDRoots()), tdx.NewVerifier(dcap.IntelRoots()), sgx.NewVerifier(dcap.IntelRoots()))
	for tee, m := range machines {
		ev := evidenceOf(t, m)
		if _, err := v.Verify(t.Context(), ev, nil, now); err != nil {
			t.Errorf("%s: %v", tee, err)
		}
		for _, other := range tees {
			relabelled := *ev
			if relabelled.Format = attest.Format("sim-" + other); other != tee {
				if c, err := v.Verify(t.Context(), &relabelled, nil, now); err == nil {
					t.Errorf("%s as %s: %+v", tee, other, c)
				}
			}
			relabelled.Format = attest.Format(other)
			if r := hardware.Appraise(t.Context(), &relabelled, attest.Expect(data, attest.LevelKey, now), nil, now); r.Affirmed() {
				t.Errorf("%s as hardware %s is affirmed", tee, other)
			}
			if _, err := v.Verify(t.Context(), &relabelled, nil, now); !errors.Is(err, attest.ErrNotMine) {
				t.Errorf("%s as hardware %s: %v", tee, other, err)
			}
		}
	}
	for format, real := range map[attest.Format]attest.Verifier{tdx.Format: tdx.NewVerifier(dcap.IntelRoots()), sgx.Format: sgx.NewVerifier(dcap.IntelRoots())} {
		ev := evidenceOf(t, machines[string(format)])
		ev.Format = format
		if _, err := real.Verify(t.Context(), ev, nil, now); attest.CodeOf(err) != attest.CodeUntrustedRoot {
			t.Errorf("%s under Intel's root: %v", format, err)
		}
	}
}

// SGX and TDX have one verifier core. A root that is made for one of them vouches for no evidence of the other.
func TestRootIsOfOneTEE(t *testing.T) {
	t.Parallel()
	for from, to := range map[string]string{"tdx": "sgx", "sgx": "tdx"} {
		dir := t.TempDir()
		if _, err := sim.Open("sim:"+from, dir, clock); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "sim-"+from+".pem"), filepath.Join(dir, "sim-"+to+".pem")); err != nil {
			t.Fatal(err)
		}
		m, err := sim.Open("sim:"+to, dir, clock)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify(t, evidenceOf(t, m), m.Root()); attest.CodeOf(err) != attest.CodeUntrustedRoot {
			t.Errorf("%s under a root for %s: %v", to, from, err)
		}
	}
}

// rootOnly is the evidence with nothing stapled but its root.
func rootOnly(t *testing.T, ev *attest.Evidence) *attest.Evidence {
	t.Helper()
	for _, e := range ev.Endorsements {
		bare := &attest.Evidence{Format: ev.Format, Raw: ev.Raw, Endorsements: []attest.Endorsement{e}}
		if _, err := sim.RootOf(bare); err == nil {
			return bare
		}
	}
	t.Fatal("no root is stapled")
	return nil
}

// What is not stapled comes from the simulated service, by the endorser and over HTTP, and no other service is asked.
func TestEveryServiceSuppliesAll(t *testing.T) {
	t.Parallel()
	for tee, service := range map[string]string{"snp": sim.KDSService, "azure-snp": sim.KDSService, "tdx": sim.PCSService, "sgx": sim.PCSService} {
		t.Run(tee, func(t *testing.T) {
			t.Parallel()
			m := opened(t, "sim:"+tee)
			ev := rootOnly(t, evidenceOf(t, m))
			v := sim.NewVerifier([]string{m.Root()})
			for name, e := range map[string]attest.Endorser{"endorser": m.Endorser(), "HTTP": overHTTP{m.Service()}} {
				var asked []attest.Ref
				c, err := v.Verify(t.Context(), ev, passing{e, &asked}, now)
				if err != nil || c.Revocation.Problem != nil {
					t.Fatalf("%s: %v, %v", name, c, err)
				}
				for _, ref := range asked {
					if ref.Service != service {
						t.Errorf("%s: asked %v", name, ref)
					}
					ref.Service = strings.TrimPrefix(ref.Service, "sim-")
					if _, err := m.Endorser().Endorse(t.Context(), ref); err != nil {
						t.Errorf("by the vendor's name: %v: %v", ref, err)
					}
					ref.Service = "sim-other"
					if _, err := m.Endorser().Endorse(t.Context(), ref); attest.CodeOf(err) != attest.CodeEndorsementMissing {
						t.Errorf("of another service: %v: %v", ref, err)
					}
				}
				if len(asked) == 0 {
					t.Errorf("%s: asked nobody", name)
				}
			}
			for _, path := range []string{"", "/", "/no/such/path", "%"} {
				ref := attest.Ref{Service: service, Path: path, Kind: attest.KindCRL}
				if _, err := m.Endorser().Endorse(t.Context(), ref); attest.CodeOf(err) != attest.CodeEndorsementMissing {
					t.Errorf("%q: %v", path, err)
				}
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := m.Endorser().Endorse(ended, attest.Ref{}); attest.CodeOf(err) != attest.CodeEndorserUnreachable {
				t.Errorf("given up: %v", err)
			}
			for method, status := range map[string]int{http.MethodGet: http.StatusNotFound, http.MethodPost: http.StatusMethodNotAllowed} {
				w := httptest.NewRecorder()
				m.Service().ServeHTTP(w, httptest.NewRequest(method, "/no/such/path", nil))
				if w.Code != status {
					t.Errorf("%s: status %d", method, w.Code)
				}
			}
		})
	}
}

// passing passes requests on, and keeps what was asked.
type passing struct {
	attest.Endorser
	asked *[]attest.Ref
}

func (p passing) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	*p.asked = append(*p.asked, ref)
	return p.Endorser.Endorse(ctx, ref)
}

// An endorser that answers nothing has none.
func TestEmptyAnswer(t *testing.T) {
	t.Parallel()
	m := opened(t, "sim:tdx")
	var asked []attest.Ref
	_, err := sim.NewVerifier([]string{m.Root()}).Verify(t.Context(), rootOnly(t, evidenceOf(t, m)), recorder{&asked}, now)
	if attest.CodeOf(err) != attest.CodeEndorsementMissing || !strings.Contains(err.Error(), sim.PCSService) {
		t.Error(err)
	}
}

func TestWrongClock(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"sim:tdx", "sim:sgx"} {
		for clock, code := range map[string]attest.Code{"clock=72h": attest.CodeChainExpired, "clock=-1h": "", "clock=-263000h": attest.CodeChainExpired} {
			m := opened(t, spec+","+clock)
			if _, err := verify(t, evidenceOf(t, m), m.Root()); attest.CodeOf(err) != code {
				t.Errorf("%s,%s: %v", spec, clock, err)
			}
		}
	}
}

func TestSpec(t *testing.T) {
	t.Parallel()
	s, err := sim.ParseSpec("sim:tdx:granite-rapids,dir=/x y,serial=on,quote-time=39ms,clock=-1h,debug=on")
	if err != nil || s.TEE != "tdx" || s.Product != "granite-rapids" || s.Dir != "/x y" || !s.Serial || s.QuoteTime != 39*time.Millisecond || s.Clock != -time.Hour {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := sim.ParseSpec("sim"); err != nil || s.TEE != "snp" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, tee := range tees {
		if !strings.Contains(sim.Syntax(), tee) {
			t.Errorf("the syntax does not name %s: %s", tee, sim.Syntax())
		}
		_, err := sim.ParseSpec("sim:" + tee + ",help")
		if attest.CodeOf(err) != attest.CodeUsage || !strings.Contains(err.Error(), "sim:"+tee) || !strings.Contains(err.Error(), "quote-time") {
			t.Errorf("%v", err)
		}
	}
	for _, bad := range []string{
		"", "tdx", "sim:", "sim:vax", "sim:tdx:", "sim:tdx:emerald-rapids:x", "sim:tdx,debug", "sim:tdx,debug=", "sim:tdx,debug=on,debug=on",
		"sim:tdx,serial=1", "sim:tdx,quote-time=1", "sim:tdx,clock=noon",
	} {
		if _, err := sim.ParseSpec(bad); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := sim.Open("sim:vax", "", clock); attest.CodeOf(err) != attest.CodeUsage {
		t.Error(err)
	}
	if _, err := new(sim.Spec).Open(); attest.CodeOf(err) != attest.CodeUsage {
		t.Errorf("the zero Spec: %v", err)
	}
	for _, bad := range []string{"sim:tdx,quote-time=-1s", "sim:snp,quote-time=-1s", "sim:snp,debug=maybe", "sim:snp:rome", "sim:tdx,=on", "sim:snp,=on"} {
		if _, err := sim.Open(bad, "", clock); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
	// Without a clock the machine goes by that of the computer.
	m, err := sim.Open("sim:tdx", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.NewVerifier([]string{m.Root()}).Verify(t.Context(), evidenceOf(t, m), nil, time.Now()); err != nil {
		t.Error(err)
	}
}

// The directory of the spec comes first, and either keeps the root.
func TestSpecDirectory(t *testing.T) {
	t.Parallel()
	for _, tee := range []string{"tdx", "sgx"} {
		mine, given := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "state")
		open := func(spec string) sim.Machine {
			t.Helper()
			m, err := sim.Open(spec, given, clock)
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		a, b, c := open("sim:"+tee), open("sim:"+tee+",debug=on"), open("sim:"+tee+",dir="+mine)
		if a.Root() != b.Root() || a.Root() == c.Root() {
			t.Errorf("%s: roots %s, %s, %s", tee, a.Root(), b.Root(), c.Root())
		}
		ca, err := verify(t, evidenceOf(t, a), b.Root())
		if err != nil {
			t.Fatal(err)
		}
		cb, err := verify(t, evidenceOf(t, b), a.Root())
		if err != nil || ca.PPID.String() != cb.PPID.String() {
			t.Errorf("%s: processes that share a directory are different platforms: %v", tee, err)
		}
		name := filepath.Join(given, "sim-"+tee+".pem")
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		good, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := os.ReadFile(filepath.Join(mine, "sim-"+tee+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		certificate, seed, ok := strings.Cut(string(good), "-----BEGIN JURAT")
		if !ok {
			t.Fatalf("%s", good)
		}
		_, otherSeed, _ := strings.Cut(string(foreign), "-----BEGIN JURAT")
		for what, text := range map[string]string{
			"empty": "", "no seed": certificate, "no certificate": "-----BEGIN JURAT" + seed, "truncated": string(good[:len(good)-40]),
			"another's seed": certificate + "-----BEGIN JURAT" + otherSeed, "no certificate in it": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + string(good),
		} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := sim.Open("sim:"+tee, given, clock); attest.CodeOf(err) != attest.CodeConfigValue {
				t.Errorf("%s, %s: %v", tee, what, err)
			}
		}
		if err := os.Chmod(name, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := sim.Open("sim:"+tee, given, clock); attest.CodeOf(err) != attest.CodeConfigValue || !strings.Contains(err.Error(), "others") {
			t.Errorf("%s, readable by others: %v", tee, err)
		}
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := sim.Open("sim:"+tee+",dir="+file, "", clock); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%s, a file for a directory: %v", tee, err)
		}
	}
}
