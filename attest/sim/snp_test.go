package sim_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
)

var (
	now  = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	data = attest.ReportData{1, 2, 3}
)

func clock() time.Time { return now }

// genoa is one authority for all tests that do not need their own: RSA keys are slow to make.
var genoa = sync.OnceValues(func() (*sim.Platform, error) { return sim.New(sim.Config{Now: clock}) })

func platform(t *testing.T, cfg sim.Config) *sim.Platform {
	t.Helper()
	base, err := genoa()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Now = clock
	p, err := base.With(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func evidence(t *testing.T, p *sim.Platform) *attest.Evidence {
	t.Helper()
	ev, err := p.Attest(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func verify(t *testing.T, ev *attest.Evidence, roots ...string) (*attest.Claims, error) {
	t.Helper()
	return sim.NewVerifier(roots).Verify(t.Context(), ev, attest.NoEndorser{}, now)
}

func TestPlatformsVerify(t *testing.T) {
	t.Parallel()
	for _, product := range []string{"milan", "genoa", "siena", "turin"} {
		t.Run(product, func(t *testing.T) {
			t.Parallel()
			base, err := sim.New(sim.Config{Product: product, Now: clock})
			if err != nil {
				t.Fatal(err)
			}
			for name, cfg := range map[string]sim.Config{
				"version 2": {ReportVersion: 2},
				"version 3": {ReportVersion: 3},
				"version 5": {ReportVersion: 5, Debug: true, TCB: attest.TCB{"snp": 99}, HostData: bytes.Repeat([]byte{7}, 32)},
				"VLEK":      {CSP: "CN=cc.example"},
			} {
				if cfg.ReportVersion == 2 && product == "turin" {
					continue
				}
				cfg.Now = clock
				p, err := base.With(cfg)
				if err != nil {
					t.Fatal(name, err)
				}
				ev := evidence(t, p)
				c, err := verify(t, ev, p.Root())
				if err != nil {
					t.Fatal(name, err)
				}
				if c.Vendor != "sim" || !c.Simulated || c.TEE != "snp" || c.Generation != base.Generation() || !strings.HasPrefix(c.Product, "SIMULATED EPYC ") ||
					c.Root != p.Root() || c.ReportData != data || c.Debug != attest.FlagOf(cfg.Debug) || c.CSP != cfg.CSP || (c.CSP == "") != (len(c.ChipID) > 0) ||
					c.Revocation.Problem != nil || c.Revocation.Issued.IsZero() || !bytes.Equal(c.Measured["launch"], sim.DefaultMeasurement()) {
					t.Errorf("%s: %+v", name, c)
				}
				if cfg.TCB != nil && c.TCB["snp"] != 99 {
					t.Errorf("%s: TCB %v", name, c.TCB)
				}
				size := len(ev.Raw)
				for _, e := range ev.Endorsements {
					size += len(e.Raw)
				}
				if size > 9<<10 {
					t.Errorf("%s: evidence with endorsements has %d bytes, more than a 13 KB Certificate message bears", name, size)
				}
			}
		})
	}
}

func TestOnlyNamedRoots(t *testing.T) {
	t.Parallel()
	p := platform(t, sim.Config{})
	ev := evidence(t, p)
	if root, err := sim.RootOf(ev); err != nil || root != p.Root() {
		t.Fatalf("RootOf: %q, %v", root, err)
	}
	for name, roots := range map[string][]string{"none": nil, "another": {"sha256:" + strings.Repeat("0", 64)}, "empty": {""}} {
		_, err := verify(t, ev, roots...)
		var coded *attest.Error
		if !errors.As(err, &coded) || coded.Code != attest.CodeSimulated || !strings.Contains(coded.Got, p.Root()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	foreign := *ev
	foreign.Format = snp.Format
	if _, err := verify(t, &foreign, p.Root()); !errors.Is(err, attest.ErrNotMine) {
		t.Errorf("evidence of hardware: %v", err)
	}
}

func TestAMDRootsRefuseSimulation(t *testing.T) {
	t.Parallel()
	real := snp.NewVerifier(snp.AMDRoots())
	ev := evidence(t, platform(t, sim.Config{}))
	if _, err := real.Verify(t.Context(), ev, attest.NoEndorser{}, now); !errors.Is(err, attest.ErrNotMine) {
		t.Fatalf("as it is: %v", err)
	}
	ev.Format = snp.Format
	if _, err := real.Verify(t.Context(), ev, attest.NoEndorser{}, now); attest.CodeOf(err) != attest.CodeUntrustedRoot {
		t.Fatalf("relabelled: %v", err)
	}
	ev.Endorsements = ev.Endorsements[:2] // without the ARK
	if _, err := real.Verify(t.Context(), ev, attest.NoEndorser{}, now); attest.CodeOf(err) != attest.CodeChain {
		t.Fatalf("relabelled, without its root: %v", err)
	}
	ev.Endorsements = ev.Endorsements[:1] // the leaf alone, for AMD's ASK
	if _, err := real.Verify(t.Context(), ev, attest.NoEndorser{}, now); attest.CodeOf(err) != attest.CodeChain {
		t.Fatalf("relabelled, the leaf alone: %v", err)
	}
}

func TestRootMustBeUnique(t *testing.T) {
	t.Parallel()
	p := platform(t, sim.Config{})
	ev := evidence(t, p)
	ev.Endorsements = append(ev.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: p.ARK()})
	if _, err := verify(t, ev, p.Root()); attest.CodeOf(err) != attest.CodeChain {
		t.Errorf("two roots: %v", err)
	}
	ev.Endorsements = nil
	if _, err := verify(t, ev, p.Root()); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Errorf("no root: %v", err)
	}
}

func TestEndorserSuppliesWhatIsMissing(t *testing.T) {
	t.Parallel()
	p := platform(t, sim.Config{TCB: attest.TCB{"microcode": 7}})
	ev := evidence(t, p)
	ev.Endorsements = ev.Endorsements[2:3] // the ARK alone
	v := sim.NewVerifier([]string{p.Root()})
	c, err := v.Verify(t.Context(), ev, p.Endorser(), now)
	if err != nil || c.Revocation.Problem != nil || c.TCB["microcode"] != 7 {
		t.Fatalf("%+v, %v", c, err)
	}
	// Only the simulated service is asked.
	var asked []attest.Ref
	_, _ = v.Verify(t.Context(), ev, recorder{&asked}, now)
	for _, ref := range asked {
		if ref.Service != sim.KDSService {
			t.Errorf("asked %v", ref)
		}
	}
	if len(asked) == 0 {
		t.Error("asked nobody")
	}
}

type recorder struct{ asked *[]attest.Ref }

func (r recorder) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	*r.asked = append(*r.asked, ref)
	return nil, nil
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	p := platform(t, sim.Config{})
	p.Revoke()
	if _, err := verify(t, evidence(t, p), p.Root()); attest.CodeOf(err) != attest.CodeRevoked {
		t.Fatalf("%v", err)
	}
}

func TestDirectoryKeepsRoot(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	const processes = 3
	made := make([]*sim.Platform, processes)
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() {
			p, err := sim.New(sim.Config{Dir: dir, Product: "milan", Debug: i == 1, Now: clock})
			if err != nil {
				t.Error(err)
			}
			made[i] = p
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	var chip string
	for i, p := range made {
		c, err := verify(t, evidence(t, p), made[0].Root())
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && c.ChipID.String() != chip {
			t.Error("processes that share a directory have different chips")
		}
		chip = c.ChipID.String()
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	name := filepath.Join(dir, entries[0].Name())
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory mode %v, %v", info.Mode(), err)
	}
	for what, spoil := range map[string]func() error{
		"readable by others": func() error { return os.Chmod(name, 0o644) },
		"truncated":          func() error { return errors.Join(os.Chmod(name, 0o600), os.Truncate(name, 100)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := sim.New(sim.Config{Dir: dir, Product: "milan"}); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestQuoteTime(t *testing.T) {
	t.Parallel()
	p := platform(t, sim.Config{QuoteTime: 20 * time.Millisecond, Serial: true})
	start := time.Now()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := p.Attest(t.Context(), data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("three serial reports took %v", took)
	}
	slow := platform(t, sim.Config{QuoteTime: time.Hour, Serial: true})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := slow.Attest(ctx, data); !errors.Is(err, context.DeadlineExceeded) || attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := p.Attest(t.Context(), attest.ReportData{}); attest.CodeOf(err) != attest.CodeNoExpectation {
		t.Errorf("zero report data: %v", err)
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	measurement := strings.Repeat("ab", 48)
	got, err := sim.ParseConfig("sim:snp:milan,debug=on,tcb.snp=3,tcb.microcode=84,serial=on,quote-time=39ms,dir=/x y,version=3,csp=CN=z,measurement=" + measurement)
	if err != nil {
		t.Fatal(err)
	}
	if got.Product != "milan" || !got.Debug || got.TCB["snp"] != 3 || got.TCB["microcode"] != 84 || !got.Serial || got.QuoteTime != 39*time.Millisecond ||
		got.Dir != "/x y" || got.ReportVersion != 3 || got.CSP != "CN=z" || hex.EncodeToString(got.Measurement) != measurement {
		t.Errorf("%+v", got)
	}
	for _, good := range []string{"sim", "sim:snp", "sim:snp:turin,tcb.fmc=2", "sim,product=genoa", "sim:snp:genoa,product=genoa,debug=off"} {
		if _, err := sim.ParseConfig(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "snp", "sim:tdx", "sim:snp:rome", "sim:snp:milan:x", "sim,debug", "sim,debug=", "sim,debug=yes", "sim,debug=on,debug=on", "sim,colour=red",
		"sim,tcb.snp=256", "sim,tcb.snp=-1", "sim,tcb.fmc=1", "sim,tcb.=1", "sim,version=4", "sim,version=0", "sim:snp:turin,version=2",
		"sim,measurement=abcd", "sim,measurement=zz", "sim,quote-time=39", "sim,quote-time=-1s", "sim,host-data=ab", "sim:snp:milan,product=genoa", "sim,serial=1",
	} {
		if _, err := sim.ParseConfig(bad); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
