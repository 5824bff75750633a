// Package e2e runs the real binary between real clients and real servers.
package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait; it is reached only when something is broken.
const patience = 60 * time.Second

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "jurat-e2e-")
	if err != nil {
		log.Fatal(err)
	}
	binary = filepath.Join(dir, "jurat")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "./cmd/jurat")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		log.Fatalf("%v\n%s", err, out)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// lab is one test's folder, with the root of its simulated platforms.
type lab struct {
	*testing.T
	dir string
}

func newLab(t *testing.T) *lab { return &lab{t, t.TempDir()} }

// tee is the --tee argument of a simulated platform whose root is shared within the lab.
func (l *lab) tee(knobs ...string) string {
	return strings.Join(append([]string{"sim:snp:genoa", "dir=" + l.path("sim")}, knobs...), ",")
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) write(name, content string) string {
	l.Helper()
	if err := os.WriteFile(l.path(name), []byte(content), 0o644); err != nil {
		l.Fatal(err)
	}
	return l.path(name)
}

// need skips the test, visibly, where a program is absent.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is absent (test/setup.sh all fetches it)", p)
		}
	}
}

// outcome of a program that ran to its end.
type outcome struct {
	code           int
	stdout, stderr string
}

// run runs a program to its end.
func (l *lab) run(name string, args ...string) outcome {
	l.Helper()
	cmd := exec.CommandContext(l.Context(), name, args...)
	return l.finish(cmd)
}

func (l *lab) finish(cmd *exec.Cmd) outcome {
	l.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if cmd.Env == nil {
		cmd.Env = l.env()
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		l.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// env is a clean environment: what this machine's says about trust stores must not decide a test.
func (l *lab) env() []string {
	env := []string{"HOME=" + l.dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "GOCACHE=" + goEnv("GOCACHE"), "GOPATH=" + goEnv("GOPATH"), "GOFLAGS=" + os.Getenv("GOFLAGS")}
	for _, name := range []string{"PYENV_ROOT", "GOROOT"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

var goEnv = sync.OnceValue(func() func(string) string {
	values := map[string]string{}
	if out, err := exec.Command("go", "env", "-json").Output(); err == nil {
		_ = json.Unmarshal(out, &values)
	}
	return func(name string) string { return values[name] }
})()

func (l *lab) jurat(args ...string) outcome {
	l.Helper()
	return l.run(binary, args...)
}

// must is jurat, which has to end with the code.
func (l *lab) must(code int, args ...string) outcome {
	l.Helper()
	o := l.jurat(args...)
	if o.code != code {
		l.Fatalf("jurat %s: exit %d, want %d\n%s%s", strings.Join(args, " "), o.code, code, o.stdout, o.stderr)
	}
	return o
}

// event is one line of a JSON log.
type event map[string]any

func (e event) text(key string) string { return fmt.Sprint(e[key]) }

func (e event) number(key string) int64 {
	n, _ := e[key].(float64)
	return int64(n)
}

// process is a jurat that serves.
type process struct {
	*lab
	cmd    *exec.Cmd
	events chan event
	done   chan struct{}
	log    *bytes.Buffer // complete once done
	addr   string        // where it listens, once address was called
}

// start runs jurat in the background and reads its log. It is stopped with the test.
func (l *lab) start(args ...string) *process {
	l.Helper()
	return l.startCommand(exec.Command(binary, args...))
}

func (l *lab) startCommand(cmd *exec.Cmd) *process {
	l.Helper()
	p := &process{lab: l, cmd: cmd, events: make(chan event, 4096), done: make(chan struct{}), log: new(bytes.Buffer)}
	if p.cmd.Env == nil {
		p.cmd.Env = l.env()
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		l.Fatal(err)
	}
	go func() {
		defer close(p.done)
		defer close(p.events)
		lines := bufio.NewScanner(io.TeeReader(stderr, p.log))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				p.events <- e
			}
		}
		_ = p.cmd.Wait()
	}()
	l.Cleanup(func() { p.stop() })
	return p
}

// wait answers the next event of that name.
func (p *process) wait(msg string) event {
	p.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-p.events:
			if !ok {
				p.Fatalf("%s ended without %q:\n%s", p.cmd, msg, p.log)
			}
			if e.text("msg") == msg {
				return e
			}
		case <-deadline:
			_ = p.cmd.Process.Kill()
			<-p.done
			p.Fatalf("%s: no %q in %s:\n%s", p.cmd, msg, patience, p.log)
		}
	}
}

// address waits until it listens, and answers where.
func (p *process) address() string {
	p.Helper()
	p.addr = p.wait("listening").text("address")
	return p.addr
}

// stop ends the process as a service manager would, and answers its last totals.
func (p *process) stop() event {
	p.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	var totals event
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-p.events:
			if !ok {
				<-p.done
				return totals
			}
			if e.text("msg") == "totals" {
				totals = e
			}
		case <-deadline:
			_ = p.cmd.Process.Kill()
			p.Errorf("%s did not end in %s", p.cmd, patience)
			<-p.done
			return totals
		}
	}
}

// policyFor writes the policy that policy init proposes for a target.
func (l *lab) policyFor(target string) string {
	l.Helper()
	return l.write("policy.yaml", l.must(0, "policy", "init", "--binding", "key", target).stdout)
}

// page serves a handler on loopback.
func (l *lab) page(h http.Handler) string {
	l.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(ln) }()
	l.Cleanup(func() { _ = s.Close() })
	return ln.Addr().String()
}
