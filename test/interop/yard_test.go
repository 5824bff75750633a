package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// sidecarUser is whom Istio's sidecars run as, so that rules for the kernel can tell their connections from others'.
const sidecarUser = 1337

// yard is a place for processes of jurat, on simulated platforms.
type yard struct {
	*testing.T
	dir     string // that every user can read
	binary  string
	clients int
}

// Platforms, of which policies accept the one or the other.
const (
	genoa = "genoa"
	milan = "milan"
)

// newYard writes the policies genoa.yaml and milan.yaml, for the platforms of that name, and either.yaml.
func newYard(t *testing.T) *yard {
	t.Helper()
	dir, err := os.MkdirTemp("", "jurat-interop-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	y := &yard{T: t, dir: dir, binary: program(t, "jurat")}
	for _, d := range []string{dir, y.path("sim"), y.path("home")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, sidecarUser, sidecarUser); err != nil {
			t.Skipf("needs to become another user: %v", err)
		}
	}
	roots := map[string]string{}
	for _, g := range []string{genoa, milan} {
		probe := y.serve("--tee", y.tee(g), "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1")
		text := y.run("policy", "init", "--binding", "key", probe.event(t, "listening")["address"].(string))
		probe.stop()
		if roots[g] = regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindString(text); roots[g] == "" {
			t.Fatalf("no root in %s", text)
		}
	}
	for name, generations := range map[string][]string{genoa: {genoa}, milan: {milan}, "either": {genoa, milan}} {
		var allow []string
		for _, g := range generations {
			allow = append(allow, fmt.Sprintf("{vendor: sim, generation: %s, root: %q}", g, roots[g]))
		}
		y.write(name+".yaml", fmt.Sprintf("policy: %s\nplatforms: {allow: [%s]}\nworkload: {measurement: any, debug: off}\nfreshness: {evidence: 1h}\n", name, strings.Join(allow, ", ")))
	}
	return y
}

func (y *yard) path(name string) string { return filepath.Join(y.dir, name) }

func (y *yard) write(name, text string) string {
	y.Helper()
	replace(y.T, y.path(name), []byte(text))
	return y.path(name)
}

func (y *yard) tee(platform string) string { return "sim:snp:" + platform + ",dir=" + y.path("sim") }

func (y *yard) env() []string {
	return []string{"HOME=" + y.path("home"), "TMPDIR=" + y.dir, "PATH=" + os.Getenv("PATH")}
}

// run runs jurat to its end.
func (y *yard) run(args ...string) string {
	y.Helper()
	cmd := exec.CommandContext(y.Context(), y.binary, args...)
	cmd.Env = y.env()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		y.Fatalf("jurat %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

// serve runs "jurat serve" as a sidecar's user.
func (y *yard) serve(args ...string) *process {
	y.Helper()
	return y.as(sidecarUser, append([]string{"serve", "--log", "json"}, args...)...)
}

// as runs jurat as a user.
func (y *yard) as(uid uint32, args ...string) *process {
	y.Helper()
	return startAs(y.T, &syscall.Credential{Uid: uid, Gid: uid}, y.dir, y.env(), y.binary, args...)
}

// event waits for a line of the log of jurat, and answers it.
func (p *process) event(t *testing.T, msg string) map[string]any {
	t.Helper()
	var found map[string]any
	poll(t, p.name+" says "+msg, func() error {
		lines := bufio.NewScanner(bytes.NewReader(p.out.tail(maxOutput)))
		lines.Buffer(nil, maxOutput)
		for lines.Scan() {
			var e map[string]any
			if json.Unmarshal(lines.Bytes(), &e) == nil && e["msg"] == msg {
				found = e
				return nil
			}
		}
		return fmt.Errorf("no %q yet", msg)
	}, p)
	return found
}

// kernel gives the kernel rules of nftables, for as long as the test runs.
func kernel(t *testing.T, rules string) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft (test/setup.sh nft)")
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("needs nftables with REDIRECT: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("nft", "flush", "ruleset").Run() }) // this network is the test's own
}
