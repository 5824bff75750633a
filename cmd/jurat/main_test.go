package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/evlog"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/test/fakepcs"
	"github.com/jurat-tls/jurat/test/vectors"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"jurat": main, "subscriber": subscriber, "fleet": fleet})
}

func TestScripts(t *testing.T) {
	examples, err := filepath.Abs("../../docs/examples")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "sim") // one simulated root for all: making one takes a second
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SIM", "sim:snp:genoa,dir="+root)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("EXAMPLES", examples)
			env.Setenv("VECTORS", filepath.Join(vectors.Find(), "snp"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"foreign": foreign,
			"serve":   serveInBackground,
			"forward": forwardInBackground,
			"proxies": proxiesInBackground,
			"origin":  origin,
			"exits":   exits,
			"control": controlInBackground, "eventually": eventually,
			"flip": flip, "strictly": strictly, "csds": csds, "hup": hup,
			"edit":    edit,
			"keygen":  keygen,
			"keyid":   keyid,
			"ak":      attestationKey,
			"vendors": func(ts *testscript.TestScript, _ bool, args []string) { vendors(ts, root, args) },
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "tee":
				_, err := snp.Probe()
				return attest.CodeOf(err) != attest.CodeNoTEE, nil
			case "xds":
				return builtWithXDS, nil
			case "ego":
				return builtForEGo, nil
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
	flags := []string{"serve", "--log", "json", "--listen", "127.0.0.1:0"}
	if args[1] == "-c" {
		flags = flags[:3] // the file says where to listen
	}
	inBackground(ts, args[:1], append(flags, args[1:]...))
}

// forwardInBackground is serveInBackground for "jurat forward", on a free port where no --listen says otherwise.
func forwardInBackground(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: forward VARIABLE FLAGS...")
	}
	flags := []string{"forward", "--log", "json"}
	if !slices.Contains(args, "--listen") {
		flags = append(flags, "--listen", "127.0.0.1:0")
	}
	inBackground(ts, args[:1], append(flags, args[1:]...))
}

// proxiesInBackground starts "jurat forward" as two proxies: proxies SOCKS CONNECT FLAGS...
func proxiesInBackground(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: proxies VARIABLE VARIABLE FLAGS...")
	}
	inBackground(ts, args[:2], append([]string{"forward", "--log", "json", "--socks", "127.0.0.1:0", "--connect", "127.0.0.2:0"}, args[2:]...))
}

// origin starts a service that answers everything with the name that it was asked for, and puts its address into a variable:
// origin ADDR.
func origin(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "asked for %s %s\n", r.Host, r.URL.Path)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.Listener.Addr().String())
}

// inBackground starts jurat until the test ends, and puts the addresses that it listens on into variables. NAME_PID and NAME.log
// are of the first.
func inBackground(ts *testscript.TestScript, variables, args []string) {
	cmd := exec.Command("jurat", args...)
	path, err := lookPath(ts, "jurat")
	ts.Check(err)
	cmd.Path = path
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH")}
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	name := variables[0]
	ts.Setenv(name+"_PID", strconv.Itoa(cmd.Process.Pid))
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
			ts.Setenv(variables[0], e.Address)
			if variables = variables[1:]; len(variables) > 0 {
				continue
			}
			log, err := os.Create(ts.MkAbs(name + ".log"))
			ts.Check(err)
			go func() {
				defer log.Close()
				for lines.Scan() { // keeps the pipe from filling
					_, _ = log.Write(append(lines.Bytes(), '\n'))
				}
			}()
			return
		}
	}
	ts.Fatalf("jurat %s ended:\n%s", args[0], seen.String())
}

// hup has a process that runs in the background read its files anew: hup VARIABLE.
func hup(ts *testscript.TestScript, _ bool, args []string) {
	pid, err := strconv.Atoi(ts.Getenv(args[0] + "_PID"))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, syscall.SIGHUP))
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

// vendors starts fake services of AMD and Intel under one address and puts it into a variable. With a second argument they
// have nothing, and answer everything with that status.
//
//	vendors URL [503]
func vendors(ts *testscript.TestScript, root string, args []string) {
	spec, err := sim.ParseSpec("sim:snp:genoa,dir=" + root)
	ts.Check(err)
	machine, err := spec.Open()
	ts.Check(err)
	pcs, err := fakepcs.New(time.Now(), 30*24*time.Hour)
	ts.Check(err)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(args) > 1:
			status, _ := strconv.Atoi(args[1])
			w.WriteHeader(status)
		case strings.Contains(r.URL.Path, "/v1/"):
			machine.Service().ServeHTTP(w, r)
		default:
			pcs.ServeHTTP(w, r)
		}
	})
	server := httptest.NewServer(handler)
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.URL)
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

// edit replaces one text in a file by another: edit FILE OLD NEW.
func edit(ts *testscript.TestScript, _ bool, args []string) {
	old := ts.ReadFile(args[0])
	if !strings.Contains(old, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(old, args[1], args[2])), 0o644))
}

// keygen writes a new key pair: keygen PRIVATE PUBLIC.
func keygen(ts *testscript.TestScript, _ bool, args []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
}

// keyid puts the name of the key that signed a head into a variable: keyid VARIABLE HEAD.
func keyid(ts *testscript.TestScript, _ bool, args []string) {
	h, err := evlog.ParseHead([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Setenv(args[0], h.KeyID())
}

// attestationKey writes the attestation key that TPM evidence in JSON names, as an operator has it who knows the machine:
// ak EVIDENCE PUBLIC.
func attestationKey(ts *testscript.TestScript, _ bool, args []string) {
	var evidence struct {
		Key []byte `json:"ak_public"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &evidence))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: evidence.Key}), 0o600))
}
