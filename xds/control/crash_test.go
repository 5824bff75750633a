package control_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/resource"
)

// victim is a control plane that is killed: it takes one directory after the other, and says what it has taken.
func victim() {
	dir, state := os.Getenv("JURAT_TEST_CONTROL"), os.Getenv("JURAT_TEST_STATE")
	c, err := control.Open(dir, state, decode, anything{}, control.Options{})
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	var n int
	if files, err := control.ReadDirectory(dir); err == nil {
		_, _ = fmt.Sscanf(string(files["a.yaml"]), "cds c v%d", &n)
	}
	out := bufio.NewWriter(os.Stdout)
	for {
		n++
		if err := swap(dir, versioned(n)); err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		if err := c.Reload("victim"); err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		fmt.Fprintln(out, "taken", n, c.Status().Serial)
		_ = out.Flush()
	}
}

// versioned is a directory whose files belong together.
func versioned(n int) map[string]string {
	return map[string]string{"groups.yaml": localGroups, "a.yaml": fmt.Sprintf("cds c v%d\n%s", n, strings.Repeat(fmt.Sprintf("eds e%d x\n", n), 1)), "g/b.yaml": fmt.Sprintf("lds l v%d", n)}
}

// However often it is killed, what is served is one whole directory, every change that was told is in the history, and versions go on.
func TestKilled(t *testing.T) {
	base := t.TempDir()
	dir, state := filepath.Join(base, "dir"), filepath.Join(base, "state")
	if err := swap(dir, versioned(0)); err != nil {
		t.Fatal(err)
	}
	rounds := 25
	if testing.Short() {
		rounds = 4
	}
	var told uint64
	var toldSerial uint64
	changes := 0
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "JURAT_TEST_CONTROL="+dir, "JURAT_TEST_STATE="+state)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		kill := time.AfterFunc(time.Duration(20+rand.IntN(120))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for lines.Scan() {
			var n, serial uint64
			if _, err := fmt.Sscanf(lines.Text(), "taken %d %d", &n, &serial); err != nil {
				t.Fatalf("round %d: %s", round, lines.Text())
			}
			if n < told || serial <= toldSerial {
				t.Fatalf("round %d: change %d (%d) after %d (%d)", round, n, serial, told, toldSerial)
			}
			told, toldSerial = n, serial
			changes++
		}
		kill.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		// Nothing of the directory: what was accepted is served, and is of one piece.
		away := dir + ".away"
		if err := os.Rename(dir, away); err != nil {
			t.Fatal(err)
		}
		p := &plane{t: t, dir: dir, state: state, local: filepath.Join(base, fmt.Sprint("s", round))}
		if toldSerial > 0 {
			p.start(control.Options{Poll: time.Hour})
			d := p.delta(p.connect())
			d.subscribe(resource.Cluster)
			m := d.next()
			d.ack(m)
			v := value(m.Resources[0].Resource.Value)
			d.subscribe(resource.Listener)
			d.want("Listener l=" + v)
			d.subscribe(resource.Endpoints)
			d.want("ClusterLoadAssignment e" + v[1:] + "=x")
			if st := p.Status(); st.Serial < toldSerial || len(st.Problem) == 0 {
				t.Fatalf("round %d: serial %d, told %d, %v", round, st.Serial, toldSerial, st.Problem)
			}
			all, err := control.History(state, 1<<20)
			if err != nil || uint64(len(all)) < uint64(changes) || all[len(all)-1].Serial != p.Status().Serial {
				t.Fatalf("round %d: %d changes of %d, %v", round, len(all), changes, err)
			}
			p.stop()
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d changes, killed %d times", changes, rounds)
}

// A bad directory after a restart: what was accepted before is served. A new state: there is nothing to serve.
func TestRestart(t *testing.T) {
	p := at(t, good, control.Options{})
	serial := p.Status().Serial
	p.stop()
	p.write(with(good, "g/a.yaml", "nonsense"))
	p.start(control.Options{})
	if st := p.Status(); st.Serial != serial || len(st.Problem) != 1 || !strings.Contains(st.Problem[0].Text, "g/a.yaml:1") {
		t.Errorf("status %+v", st)
	}
	p.stop()
	if _, err := control.Open(p.dir, t.TempDir(), decode, anything{}, control.Options{}); attest.CodeOf(err) != attest.CodeConfigSyntax {
		t.Errorf("got %v", err)
	}
	if _, err := control.Open(p.dir, t.TempDir(), decode, nil, control.Options{}); attest.CodeOf(err) != attest.CodeConfigMissing {
		t.Errorf("got %v", err)
	}
	// Versions go on from the clock where the state is lost, and from the state where the clock goes back.
	p.write(good)
	c, err := control.Open(p.dir, t.TempDir(), decode, anything{}, control.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Status().Serial <= serial {
		t.Errorf("%d after %d", c.Status().Serial, serial)
	}
	p.write(with(good, "g/a.yaml", "cds c b"))
	old, err := control.Open(p.dir, p.state, decode, anything{}, control.Options{Now: func() time.Time { return time.Unix(1, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if got := old.Status().Serial; got != serial+1 {
		t.Errorf("%d after %d", got, serial)
	}
	if _, err := control.Open(p.dir, p.state, decode, anything{}, control.Options{}); attest.CodeOf(err) != attest.CodeLogBroken {
		t.Errorf("two at once: %v", err)
	}
}

// The last line is named by no other one: the log does that, which is elsewhere.
func TestHistoryIsAnchored(t *testing.T) {
	var log bytes.Buffer
	opts := control.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}
	p := at(t, good, opts)
	p.mustApply(with(good, "g/a.yaml", "cds c changed"))
	p.stop()
	raw, err := os.ReadFile(filepath.Join(p.state, "history"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines {
		if want := fmt.Sprintf("history=%x", sha256.Sum256([]byte(line))); !strings.Contains(log.String(), want) {
			t.Errorf("the log does not have line %d, %s:\n%s", i, want, &log)
		}
	}
	log.Reset()
	if again, err := control.Open(p.dir, p.state, decode, anything{}, opts); err != nil {
		t.Fatal(err)
	} else {
		again.Close()
	}
	if want := fmt.Sprintf("history=%x", sha256.Sum256([]byte(lines[1]))); !strings.Contains(log.String(), want) {
		t.Errorf("a start does not say that it goes on from %s:\n%s", want, &log)
	}
}

// A history that somebody changed is not opened; half a line is what a crash leaves.
func TestHistory(t *testing.T) {
	p := at(t, good, control.Options{})
	for i := range 5 {
		p.mustApply(with(good, "g/a.yaml", fmt.Sprintf("cds c v%d", i)))
	}
	srv := httptest.NewServer(p.Admin())
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + "/history?n=2")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all []control.Change
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil || len(all) != 2 || all[1].Index != 6 || all[1].Who != "test" || all[1].Before != all[0].Digest ||
		len(all[1].Resource) != 1 || all[1].Resource[0].Op != control.Changed || all[1].Resource[0].Name != "c" {
		t.Errorf("%+v, %v", all, err)
	}
	p.stop()
	file := filepath.Join(p.state, "history")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	open := func(history []byte) error {
		t.Helper()
		if err := os.WriteFile(file, history, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := control.Open(p.dir, p.state, decode, anything{}, control.Options{})
		if err == nil {
			c.Close()
		}
		return err
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(raw), "\n"), "\n")
	for name, text := range map[string]string{
		"changed":   strings.Replace(string(raw), `"who":"test"`, `"who":"nobody"`, 1),
		"dropped":   strings.Join(append(append([]string{}, lines[:2]...), lines[3:]...), ""),
		"reordered": lines[1] + lines[0] + strings.Join(lines[2:], ""),
		"garbage":   string(raw) + "garbage\n",
		"long":      string(raw) + strings.Repeat("x", 2<<20) + "\n",
	} {
		if err := open([]byte(text + "\n")); attest.CodeOf(err) != attest.CodeLogBroken {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := open(append(raw, lines[3][:40]...)); err != nil {
		t.Error(err)
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != string(raw) {
		t.Errorf("half a line is still there: %v", err)
	}
	stored, err := filepath.Glob(filepath.Join(p.state, "stored", "*.json"))
	if err != nil || len(stored) != 6 {
		t.Fatalf("%v, %v", stored, err)
	}
	for _, s := range stored {
		if err := os.WriteFile(s, []byte(`{"serial":1}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(raw); attest.CodeOf(err) != attest.CodeLogBroken {
		t.Errorf("another state: %v", err)
	}
}

func TestAdmin(t *testing.T) {
	p := at(t, good, control.Options{})
	srv := httptest.NewServer(p.Admin())
	defer srv.Close()
	post := func(path, body string, want int, into any) {
		t.Helper()
		resp, err := srv.Client().Post(srv.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("%s: %s", path, resp.Status)
		}
		if into != nil {
			if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
				t.Fatal(err)
			}
		}
	}
	post("/plan", "{", 400, nil)
	raw, err := json.Marshal(toFiles(with(good, "g/a.yaml", "cds c b\ncds d a")))
	if err != nil {
		t.Fatal(err)
	}
	var plan control.Plan
	post("/plan", string(raw), 200, &plan)
	if len(plan.Problem) != 0 || len(plan.Changes) != 2 || len(plan.Policies) != 0 {
		t.Errorf("%+v", plan)
	}
	if raw, err = json.Marshal(toFiles(with(good, "g/a.yaml", "x"))); err != nil {
		t.Fatal(err)
	}
	post("/plan", string(raw), 200, &plan)
	if len(plan.Problem) != 1 || plan.Problem[0].Code != attest.CodeConfigSyntax || len(plan.Changes) != 0 {
		t.Errorf("%+v", plan)
	}
	p.write(with(good, "g/a.yaml", "x"))
	var problems []control.Problem
	post("/reload", "", 422, &problems)
	if len(problems) != 1 || problems[0].Code != attest.CodeConfigSyntax {
		t.Errorf("%+v", problems)
	}
	p.write(with(good, "g/a.yaml", "cds c c"))
	post("/reload", "", 200, nil)
	resp, err := srv.Client().Get(srv.URL + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var st control.Status
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil || len(st.Groups) != 1 || st.Groups[0].Resources[resource.Cluster] != 1 || st.Groups[0].PolicyID == "" {
		t.Errorf("%+v, %v", st, err)
	}
	p.Close()
	if err := p.apply(good); err == nil || errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
