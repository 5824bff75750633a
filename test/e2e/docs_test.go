package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every example of docs/tools.md does what the page says: each block of commands runs to its end, and all that gets a page gets the one
// behind the server.
func TestToolsPage(t *testing.T) {
	need(t, "curl", "wget", "git", "python3", "node", "npm", "javac", "java", "aws")
	if exec.Command("python3", "-m", "pip", "--version").Run() != nil {
		t.Skip("python3-pip is absent (test/setup.sh all fetches it)")
	}
	page, err := os.ReadFile("../../docs/tools.md")
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.offer(web, ln, site(l))
	addr := l.start("serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", ln.Addr().String()).address()
	l.policyFor(addr)
	fetchInJava(l)
	if err := os.Symlink(binary, l.path("jurat")); err != nil {
		t.Fatal(err)
	}
	free := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return ln.Addr().String()
	}
	here := strings.NewReplacer("pay.example:8443", addr, "--allow pay.example", "--allow 127.0.0.1", "127.0.0.1:9000", free(), "127.0.0.1:1080", free(), "127.0.0.1:3128", free())
	blocks := 0
	for block := range strings.SplitSeq(string(page), "\n\n") {
		if !strings.HasPrefix(block, "    ") {
			continue
		}
		blocks++
		background := strings.Contains(block, " &\n")
		lines := strings.Split(block, "\n")
		if background {
			lines = []string{block}
		}
		for _, line := range lines {
			script := "set -eu\ncd \"$1\"\n" + here.Replace(line)
			if background {
				script = "trap 'kill $!; wait' EXIT\n" + script
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", l.dir)
			cmd.Env = l.env()
			for i, kv := range cmd.Env {
				if path, ok := strings.CutPrefix(kv, "PATH="); ok {
					cmd.Env[i] = "PATH=" + filepath.Dir(l.path("jurat")) + ":" + path
				}
			}
			o := l.finish(cmd)
			want := max(1, strings.Count(line, "curl "))
			if strings.Contains(line, "for i in 1 2 3") {
				want = 3
			}
			got := strings.Count(o.stdout, secret) + strings.Count(o.stdout, "HEAD") + strings.Count(o.stdout, "Saved ")
			if o.code != 0 || got != want {
				t.Errorf("exit %d, %d pages of %d:\n%s\n%s%s", o.code, got, want, line, o.stdout, o.stderr)
			}
		}
	}
	if blocks < 7 {
		t.Errorf("%d blocks", blocks)
	}
}
