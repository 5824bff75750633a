//go:build linux

package tsmfs_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/test/emulate/tsmfs"
)

// patience bounds every wait; it is reached only when something is broken.
const patience = 60 * time.Second

// machine is a simulated SEV-SNP host: its firmware's reports, and the certificate table that it hands to guests.
type machine struct {
	*sim.Platform
	table []byte
}

func newMachine(t *testing.T) machine {
	t.Helper()
	p, err := sim.New(sim.Config{Product: "genoa"})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := p.Attest(t.Context(), attest.ReportData{1})
	if err != nil {
		t.Fatal(err)
	}
	// GHCB §4.1.8: GUID, offset and length of each entry, one of zeros, then what they point to.
	guids := []string{"63da758de6644564adc5f4b93be8accd", "4ab7b379bbac4fe4a02f05aef327c782", "c0b406a4a803495297433fb6014cd0ae", "92f81bc358114d3d97ffd19f88dc67ea"}
	header, body := make([]byte, 24*(len(guids)+1)), []byte(nil)
	for i, e := range ev.Endorsements { // leaf, ASK, ARK, list
		id, err := hex.DecodeString(guids[i])
		if err != nil {
			t.Fatal(err)
		}
		copy(header[24*i:], id)
		binary.LittleEndian.PutUint32(header[24*i+16:], uint32(len(header)+len(body)))
		binary.LittleEndian.PutUint32(header[24*i+20:], uint32(len(e.Raw)))
		body = append(body, e.Raw...)
	}
	return machine{p, append(header, body...)}
}

func (m machine) report(data []byte) ([]byte, error) {
	ev, err := m.Attest(context.Background(), attest.ReportData(data))
	if err != nil {
		return nil, err
	}
	return ev.Raw, nil
}

// platform is the machine behind configfs-tsm.
func (m machine) platform() tsmfs.Platform {
	return tsmfs.Platform{Provider: "sev_guest", HasAux: true, Report: func(data []byte, _ int) ([]byte, []byte, syscall.Errno) {
		if len(data) != 64 {
			return nil, nil, syscall.EINVAL
		}
		raw, err := m.report(data)
		if err != nil {
			return nil, nil, syscall.EIO
		}
		return raw, m.table, 0
	}}
}

func (m machine) roots(t *testing.T) *snp.Roots {
	t.Helper()
	roots, err := snp.NewRoots(snp.Root{Generation: m.Generation(), ARK: m.ARK()})
	if err != nil {
		t.Fatal(err)
	}
	return roots
}

// starter starts a program where the devices are.
type starter func(*exec.Cmd) error

func plain(cmd *exec.Cmd) error { return cmd.Start() }

// jurat runs the real binary to its end.
func jurat(t *testing.T, start starter, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	cmd.Env = []string{"HOME=" + t.TempDir()}
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("jurat %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, &out, &log)
	}
	return out.String(), log.String()
}

// anyPlatform is a policy with one rule that always passes.
type anyPlatform struct{}

func (anyPlatform) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "test", Checks: []attest.Check{{ID: "all", Status: attest.StatusPass}}}
}

// appraise verifies evidence of format "snp", as hardware's, under explicit roots.
func appraise(t *testing.T, roots *snp.Roots, ev *attest.Evidence, data attest.ReportData) *attest.Result {
	t.Helper()
	want := attest.Expect(data, attest.LevelKey, time.Time{})
	return attest.NewAppraiser(attest.NoEndorser{}, snp.NewVerifier(roots)).Appraise(t.Context(), ev, want, anyPlatform{}, time.Now())
}

// proves runs doctor, attest, verify and serve where an emulated SEV-SNP guest is, and verifies what they give.
func proves(t *testing.T, m machine, start starter, device string) {
	t.Helper()
	out, _ := jurat(t, start, 0, "doctor", "--json")
	var found struct {
		TEE, Device string
		OK          bool
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil || found.TEE != "snp" || found.Device != device || !found.OK {
		t.Fatalf("%s, %v", out, err)
	}

	data := attest.ReportData{1, 2, 3, 63: 9}
	file := filepath.Join(t.TempDir(), "evidence.jurat")
	hexData := hex.EncodeToString(data[:])
	jurat(t, start, 0, "attest", "--report-data", hexData, "--offline", "--out", file)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if r.Evidence.Format != snp.Format || len(r.Evidence.Endorsements) != 3 {
		t.Fatalf("format %s with %d endorsements", r.Evidence.Format, len(r.Evidence.Endorsements))
	}
	result := appraise(t, m.roots(t), r.Evidence, data)
	if !result.Affirmed() || result.Claims().Simulated || result.Claims().Revocation.Problem != nil {
		t.Fatalf("under the machine's own root: %v", result.Err())
	}
	if result := appraise(t, m.roots(t), r.Evidence, attest.ReportData{9}); result.Code() != attest.CodeReportData {
		t.Errorf("over other data: %v", result.Err())
	}
	if result := appraise(t, snp.AMDRoots(), r.Evidence, data); result.Affirmed() || result.Code() != attest.CodeChain {
		t.Errorf("under AMD's roots: %v", result.Err())
	}
	// The real relying party trusts AMD alone, and says so.
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	text := "policy: any\nplatforms:\n  allow: [amd milan+]\nworkload:\n  measurement: any\n  debug: off\nbinding: none\nrevocation: unchecked\n"
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report")
	if err := os.WriteFile(report, r.Evidence.Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "-p", policy, "--evidence", report, "--format", "snp", "--report-data", hexData, "--offline"}
	for i, e := range r.Evidence.Endorsements {
		name := report + string(rune('a'+i))
		if err := os.WriteFile(name, e.Raw, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--endorsement", name)
	}
	if out, log := jurat(t, plain, 5, args...); !strings.Contains(out+log, string(attest.CodeChain)) {
		t.Errorf("verify: %s%s", out, log)
	}
	serves(t, m, start)
}

// serves runs the proxy over the emulated guest, and connects to it.
func serves(t *testing.T, m machine, start starter) {
	t.Helper()
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	page := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "attested page") })}
	go func() { _ = page.Serve(backend) }()
	defer page.Close()
	cmd := exec.Command(program, "serve", "--tee", "auto", "--offline", "--name", "service.example", "--listen", "127.0.0.1:0", "--to", backend.Addr().String(), "--log", "json")
	cmd.Env = []string{"HOME=" + t.TempDir()}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, log)
		_ = cmd.Wait()
	}()
	address, said := "", ""
	for lines := bufio.NewScanner(log); address == "" && lines.Scan(); {
		said += lines.Text() + "\n"
		var event struct{ Msg, Address string }
		if json.Unmarshal(lines.Bytes(), &event) == nil && event.Msg == "listening" {
			address = event.Address
		}
	}
	if address == "" {
		t.Fatalf("does not listen:\n%s", said)
	}
	dial := func(roots *snp.Roots) (*ratls.Conn, error) {
		raw, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		appraiser := attest.NewAppraiser(attest.NoEndorser{}, snp.NewVerifier(roots))
		return ratls.NewConnector(ratls.NewRelyingParty(appraiser, anyPlatform{}, time.Now)).Handshake(t.Context(), raw, "service.example")
	}
	conn, err := dial(m.roots(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if claims := conn.Result().Claims(); claims.Vendor != "amd" || claims.Generation != "genoa" || conn.ConnectionState().Version != tls.VersionTLS13 {
		t.Errorf("%+v", claims)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: service.example\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !bytes.HasSuffix(answer, []byte("attested page")) {
		t.Errorf("%q, %v", answer, err)
	}
	if _, err := dial(snp.AMDRoots()); attest.CodeOf(err) != attest.CodeChain {
		t.Errorf("under AMD's roots: %v", err)
	}
}

func TestConfigfs(t *testing.T) {
	m := newMachine(t)
	mounted(t, m.platform(), tsmfs.Faults{})
	proves(t, m, plain, snp.SourceTSM)
}

// TestFaults: what goes wrong once is tried again; what stays wrong is an error, and never evidence.
func TestFaults(t *testing.T) {
	m := newMachine(t)
	data := strings.Repeat("ab", 64)
	belowParavisor := m.platform()
	belowParavisor.Floor = 2
	for _, c := range []struct {
		name     string
		platform tsmfs.Platform
		faults   tsmfs.Faults
		code     int
		reports  int
	}{
		{"works", m.platform(), tsmfs.Faults{}, 0, 1},
		{"busy", m.platform(), tsmfs.Faults{Busy: 2}, 0, 1},
		{"slow", m.platform(), tsmfs.Faults{Delay: 300 * time.Millisecond}, 0, 1},
		{"disturbed twice", m.platform(), tsmfs.Faults{Disturb: 2}, 0, 3},
		{"disturbed all the time", m.platform(), tsmfs.Faults{Disturb: 9}, 1, 3},
		{"firmware fails", m.platform(), tsmfs.Faults{Fail: syscall.EIO}, 1, 0},
		{"truncated", m.platform(), tsmfs.Faults{Truncate: 1}, 1, 1},
		{"empty", m.platform(), tsmfs.Faults{Truncate: snp.ReportSize}, 1, 1},
		{"below a paravisor", belowParavisor, tsmfs.Faults{}, 0, 1},
		{"no driver", tsmfs.Platform{}, tsmfs.Faults{}, 8, 0},
		{"another TEE", tsmfs.Platform{Provider: "some_guest"}, tsmfs.Faults{}, 8, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := mounted(t, c.platform, c.faults)
			jurat(t, plain, c.code, "attest", "--report-data", data, "--offline", "--raw", "--out", filepath.Join(t.TempDir(), "report"))
			if fs.Reports() != c.reports {
				t.Errorf("%d reports, want %d", fs.Reports(), c.reports)
			}
		})
	}
}
