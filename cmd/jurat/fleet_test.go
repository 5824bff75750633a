//go:build !noxds

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/control"
)

var (
	fleetSize = flag.Int("fleet", 12, "how many proxies TestFleetEmergency has")
	fleetOpen = flag.Int("fleetopen", 8, "how many connections each of them has open, at least one of every generation")
)

// The generations of the peers of a fleet. The first two are denied, one after the other.
var fleetPeers = []string{"snp:milan", "snp:turin", "snp:genoa", "tdx:emerald-rapids"}

// fleetSpec is what a process with a part of the fleet is told first.
type fleetSpec struct {
	From, To, Open int
	Dir, Sim       string
	Pace           time.Duration // between two pieces of the streams of that process
}

// fleetWord is what such a process says, each time it has done what it was asked for.
type fleetWord struct {
	Backend string // where its services are
	Up      int    // proxies that listen
	Open    int    // connections
	Round   *fleetRound
	Failed  string
}

// fleetRound is what has become of the connections once a generation is denied.
type fleetRound struct {
	Denied, Ended int
	Last          []int64 // by proxy: when the last connection of that generation ended, in ns
	Others, Good  int     // of the others, how many have moved bytes since, none of them wrong
	Bytes         int64
	Used          time.Duration // of the processors, until then
	Wrong         []string
}

// fleetOrder is what it is told after that: go on, or what was denied, with how many connections of each proxy are of it.
type fleetOrder struct {
	Control string
	Denied  string
}

// TestFleetEmergency: a control plane serves a fleet of proxies, each of which is what jurat serve runs, with connections open that
// carry bytes all the time, of peers on several generations. One of them is denied by a change of the policy in the control plane, and
// then another one by an edit of a file in its directory. All connections of it end, everywhere, and no other one notices anything.
// make emergency has 1,000 proxies.
func TestFleetEmergency(t *testing.T) {
	n, open := *fleetSize, max(*fleetOpen, len(fleetPeers))
	base := t.TempDir()
	simDir := filepath.Join(base, "sim")
	var allow strings.Builder
	for _, g := range append([]string{"snp:genoa"}, fleetPeers...) {
		spec, err := sim.ParseSpec("sim:" + g)
		if err != nil {
			t.Fatal(err)
		}
		spec.Dir = simDir
		m, err := spec.Open()
		if err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf("  - {vendor: sim, root: %q}\n", m.Root()); !strings.Contains(allow.String(), line) {
			allow.WriteString(line)
		}
	}
	policyOf := func(name, deny string) []byte {
		return []byte("policy: " + name + "\nplatforms:\n  allow:\n" + allow.String() + deny + "workload: {measurement: any, debug: off}\nbinding: key\nfreshness: {evidence: 24h}\n")
	}
	deny := func(generations ...string) string {
		var b strings.Builder
		b.WriteString("  deny:\n")
		for _, g := range generations {
			fmt.Fprintf(&b, "  - {vendor: sim, generation: %s, because: a rehearsal}\n", g[strings.IndexByte(g, ':')+1:])
		}
		return b.String()
	}
	write := func(name string, raw []byte) {
		t.Helper()
		file := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+"~", raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+"~", file); err != nil {
			t.Fatal(err)
		}
	}
	write("policy.yaml", policyOf("floor", ""))

	// As many processes as descriptors demand: a connection has both of its ends there, and both ends to the service.
	const perProcess = 14000
	count := (n*(4*open+16) + perProcess - 1) / perProcess
	parts := make([]*fleetPart, count)
	var backends strings.Builder
	for i := range parts {
		p := startFleet(t)
		parts[i] = p
		p.say(fleetSpec{From: i * n / count, To: (i + 1) * n / count, Open: open, Dir: base, Sim: simDir, Pace: time.Second * time.Duration(count) / time.Duration(min(2000, 4*n*open))})
		fmt.Fprintf(&backends, "\n  - {address: %q}", p.hear().Backend)
	}
	write("dir/groups.yaml", []byte("groups: [{name: fleet, require: proxies, any: true}]\n"))
	write("dir/policies/proxies.yaml", policyOf("proxies", ""))
	write("dir/policies/mesh.yaml", policyOf("mesh", ""))
	write("dir/fleet/in.yaml", []byte("listen:\n- {name: in, address: '127.0.0.1:15006', tcp: true, require: mesh, cluster: app}\nclusters:\n- name: app\n  circuit_breakers: {max_connections: 1000000}\n  endpoints:"+backends.String()+"\n"))
	plane, address := fleetControl(t, base, simDir)
	began := time.Now()
	for _, p := range parts {
		p.say(fleetOrder{Control: address})
	}
	up, opened := 0, 0
	for _, p := range parts {
		up += p.hear().Up
	}
	t.Logf("%d proxies in %d processes are up after %s", up, count, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	for _, p := range parts {
		p.say(fleetOrder{})
	}
	for _, p := range parts {
		opened += p.hear().Open
	}
	t.Logf("%d connections are open after %s", opened, time.Since(began).Round(time.Millisecond))
	synced := func() (time.Duration, bool) {
		for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(100 * time.Millisecond) { // asking takes time of the processors
			s, all := plane.Status(), 0
			for _, one := range s.Proxies {
				if one.Standing == control.Synced && one.Epoch == s.Serial {
					all++
				}
			}
			if all == n {
				return time.Since(begin), true
			}
		}
		return 0, false
	}
	if up != n || opened != n*open {
		t.Fatalf("%d proxies with %d connections", up, opened)
	}

	files, err := control.ReadDirectory(filepath.Join(base, "dir"))
	if err != nil {
		t.Fatal(err)
	}
	milan, both := policyOf("mesh", deny(fleetPeers[0])), policyOf("mesh", deny(fleetPeers[:2]...))
	files["policies/mesh.yaml"] = milan
	for k, round := range []struct {
		name, denied string
		push         func() error
	}{
		{"a push", fleetPeers[0], func() error { return plane.Apply(files, "rehearsal") }},
		{"an edit", fleetPeers[1], func() error { write("dir/policies/mesh.yaml", both); return nil }},
	} {
		before := plane.Status().Serial
		used := fleetCPU()
		pushed := time.Now()
		if err := round.push(); err != nil {
			t.Fatal(err)
		}
		taken := time.Since(pushed)
		for _, p := range parts {
			p.say(fleetOrder{Denied: round.denied})
		}
		if k > 0 {
			for end := time.Now().Add(20 * time.Second); plane.Status().Serial == before && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			taken = time.Since(pushed)
		}
		_, all := synced()
		after := time.Since(pushed)
		if st := plane.Status(); !all || st.Serial <= before || len(st.Problem) > 0 {
			t.Errorf("%s: not all are synced: %s", round.name, fleetStanding(plane))
		}
		used = fleetCPU() - used
		var lasts []time.Duration
		var sum fleetRound
		for _, p := range parts {
			r := p.hear().Round
			for _, at := range r.Last {
				lasts = append(lasts, time.Duration(at-pushed.UnixNano()))
			}
			sum.Denied += r.Denied
			sum.Ended += r.Ended
			sum.Others += r.Others
			sum.Good += r.Good
			sum.Bytes += r.Bytes
			used += r.Used
			for _, w := range r.Wrong {
				t.Errorf("%s: %s", round.name, w)
			}
		}
		slices.Sort(lasts)
		ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
		t.Logf("%s that denies %s: taken after %s; the last of %d connections ended at a proxy after p50 %s, p99 %s, at the last of %d after %s; all are synced after %s; %s of processors; %d others carried %d MiB; load %s",
			round.name, round.denied, ms(taken), sum.Denied, ms(lasts[len(lasts)/2]), ms(lasts[len(lasts)*99/100]), len(lasts), ms(lasts[len(lasts)-1]), ms(after), ms(used), sum.Others, sum.Bytes>>20, loadAverage())
		if want := n * open / len(fleetPeers); sum.Denied < want || sum.Ended != sum.Denied || sum.Good != sum.Others || len(lasts) != n {
			t.Errorf("%s: %+v", round.name, sum)
		}
		most := time.Second
		if k > 0 {
			most += time.Second // the directory is looked at five times a second, and has to have stopped changing
		}
		if n < 1000 { // among other tests, under the race detector, on a machine with other things to do
			most = 30 * time.Second
		}
		if last := lasts[len(lasts)-1]; last > most {
			t.Errorf("%s: %s, more than %s", round.name, last, most)
		}
	}
}

// fleetStanding is what a control plane says of those who are not synced.
func fleetStanding(plane *control.Control) string {
	var b strings.Builder
	s := plane.Status()
	fmt.Fprintf(&b, "%d of %v, %v", len(s.Proxies), s.Serial, s.Problem)
	for _, p := range s.Proxies {
		if p.Standing != control.Synced || p.Epoch != s.Serial {
			fmt.Fprintf(&b, "; %s %s %d %s", p.ID, p.Standing, p.Epoch, p.Reason)
		}
		if b.Len() > 4<<10 {
			break
		}
	}
	return b.String()
}

func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(raw))[:1], " ")
}

// fleetCPU is how much time of the processors this process has had.
func fleetCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fleetControl runs what jurat control runs.
func fleetControl(t *testing.T, base, simDir string) (*control.Control, string) {
	t.Helper()
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv, now: time.Now}
	c := &controlConfig{names: list{"127.0.0.1"}}
	var err error
	if c.require, err = a.loadPolicy(filepath.Join(base, "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	plane, err := control.Open(filepath.Join(base, "dir"), filepath.Join(base, "state"), decodeResources, c.require, control.Options{Check: checkResources, Now: a.now})
	if err != nil {
		t.Fatal(err)
	}
	tee, err := openTEE("sim:snp:genoa,dir="+simDir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id, err := ratls.NewIdentity(t.Context(), tee, c.names, [32]byte{1}, ratls.IdentityOptions{Now: a.now})
	if err != nil {
		t.Fatal(err)
	}
	server := attested.NewServer(c.handshake(a, id, new(endorsers), slog.New(slog.DiscardHandler)), plane.Handlers(), attested.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(ln) })
	work.Go(func() { plane.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		plane.Close()
		server.Stop()
		work.Wait()
		id.Close()
	})
	return plane, ln.Addr().String()
}

// fleetPart is another process, with a part of the fleet and its clients.
type fleetPart struct {
	t    *testing.T
	tell *json.Encoder
	told *json.Decoder
}

func startFleet(t *testing.T) *fleetPart {
	t.Helper()
	cmd := exec.Command("fleet")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &fleetPart{t, json.NewEncoder(in), json.NewDecoder(out)}
}

func (p *fleetPart) say(v any) {
	p.t.Helper()
	if err := p.tell.Encode(v); err != nil {
		p.t.Fatal(err)
	}
}

func (p *fleetPart) hear() fleetWord {
	p.t.Helper()
	var w fleetWord
	if err := p.told.Decode(&w); err != nil || w.Failed != "" {
		p.t.Fatal(cmp.Or(w.Failed, fmt.Sprint(err)))
	}
	return w
}
