package interop

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// patience bounds every wait; it is reached only when something is broken.
const patience = 60 * time.Second

// program answers where one is that "make interop" builds or fetches.
func program(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("JURAT_INTEROP_BIN")
	if dir == "" {
		dir = filepath.Join("..", "..", "bin")
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
		t.Skipf("%s is absent (make interop brings it)", name)
	}
	return path
}

// output is what a program has written, the end of it.
type output struct {
	mu   sync.Mutex
	text []byte
}

const maxOutput = 1 << 20

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if n := len(o.text) - maxOutput; n > 0 {
		o.text = append(o.text[:0], o.text[n:]...)
	}
	return len(p), nil
}

func (o *output) tail(n int) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.text[max(len(o.text)-n, 0):])
}

// process is a program that runs until the test ends.
type process struct {
	out  output
	cmd  *exec.Cmd
	done chan struct{}
	name string
}

// start runs a program. It is ended with the test, and its last words are shown if that has failed.
func start(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	dir := t.TempDir()
	return startAs(t, nil, dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}, env...), path, args...)
}

// startAs is start as a user, in a folder.
func startAs(t *testing.T, user *syscall.Credential, dir string, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{}), name: filepath.Base(path)}
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("the last words of %s:\n%s", p.name, p.out.tail(6000))
		}
	})
	return p
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// ended reports that a program is gone.
func (p *process) ended() error {
	select {
	case <-p.done:
		return errors.New(p.name + " has ended")
	default:
		return nil
	}
}

// poll waits until a condition holds. Programs whose end makes that impossible come last.
func poll(t *testing.T, what string, condition func() error, programs ...*process) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		for _, p := range programs {
			if gone := p.ended(); gone != nil {
				t.Fatalf("%s: %v; %v", what, gone, err)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %s: %v", what, patience, err)
		}
		<-tick.C
	}
}

// fill writes the files of a folder of testdata, as templates of values, to another folder. Files that exist are replaced at once, as
// those who watch them need it.
func fill(t *testing.T, from, to string, values any) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", from, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/%s: %v", from, err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := template.New(filepath.Base(file)).Option("missingkey=error").ParseFiles(file)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := text.Execute(&b, values); err != nil {
			t.Fatal(err)
		}
		replace(t, filepath.Join(to, filepath.Base(file)), b.Bytes())
	}
}

func replace(t *testing.T, file string, content []byte) {
	t.Helper()
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, content) {
		return
	}
	tmp := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, file); err != nil {
		t.Fatal(err)
	}
}
