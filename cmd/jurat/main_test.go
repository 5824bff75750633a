package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/test/vectors"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"jurat": main})
}

func TestScripts(t *testing.T) {
	root := filepath.Join(t.TempDir(), "sim") // one simulated root for all: making one takes a second
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SIM", "sim:snp:genoa,dir="+root)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("VECTORS", filepath.Join(vectors.Find(), "snp"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": serveInBackground,
			"exits": exits,
			"flip":  flip,
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "tee":
				_, err := snp.Probe()
				return attest.CodeOf(err) != attest.CodeNoTEE, nil
			case "vectors":
				return vectors.Find() != "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		UpdateScripts: os.Getenv("UPDATE") != "",
	})
}

// serveInBackground starts "jurat serve" with the arguments, on a free port, and puts its address into a variable:
//
//	serve ADDR --tee sim --to 127.0.0.1:1
func serveInBackground(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: serve VARIABLE FLAGS...")
	}
	cmd := exec.Command("jurat", append([]string{"serve", "--log", "json", "--listen", "127.0.0.1:0"}, args[1:]...)...)
	path, err := lookPath(ts, "jurat")
	ts.Check(err)
	cmd.Path = path
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH")}
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	var seen bytes.Buffer
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		seen.Write(append(lines.Bytes(), '\n'))
		var e struct{ Msg, Address string }
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Msg == "listening" {
			ts.Setenv(args[0], e.Address)
			go func() {
				for lines.Scan() { // keeps the pipe from filling
				}
			}()
			return
		}
	}
	ts.Fatalf("jurat serve ended:\n%s", seen.String())
}

func lookPath(ts *testscript.TestScript, name string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// exits runs a command that has to end with a code: exits 6 jurat verify ...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if ee, ok := err.(*exec.ExitError); ok {
		got = ee.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit %d, want %d", got, want)
	}
}

// flip writes a file with one bit flipped: flip IN OUT BYTE BIT.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	raw := []byte(ts.ReadFile(args[0]))
	at, err := strconv.Atoi(args[2])
	ts.Check(err)
	bit, err := strconv.Atoi(args[3])
	ts.Check(err)
	raw[at] ^= 1 << bit
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), raw, 0o644))
}
