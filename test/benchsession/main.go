// Command benchsession measures the session tier through the product's own code, over loopback, with the server in a process
// of its own: how far one slow quote engine serves many clients, and what a session costs beside a plain TLS handshake.
// Whatever is compared takes turns within one run. It fails when a goal is missed.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/session"
)

// quoteTime is that of a TDX host, which makes one quote after the other.
const quoteTime = 39 * time.Millisecond

var (
	serving = flag.Bool("serve", false, "be the server (for the program itself)")
	dir     = flag.String("dir", "", "keys of the simulated machine (likewise)")
	rounds  = flag.Int("rounds", 9, "rounds of the comparison of CPU time")
	each    = flag.Int("n", 1024, "connections of each kind in a round")
	clients = flag.Int("clients", 256, "clients that wait")
	span    = flag.Duration("span", 3*time.Second, "time for each measurement of a rate")
	profile = flag.String("profile", "", "write CPU profiles to this file, with .client and .server appended")
	only    = flag.String("only", "", "compare the CPU time of this kind of connection alone")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	run := parent
	if *serving {
		run = serve
	}
	if err := run(); err != nil {
		log.Fatal("benchsession: ", err)
	}
}

func profiled(suffix string) (stop func(), err error) {
	if *profile == "" {
		return func() {}, nil
	}
	f, err := os.Create(*profile + suffix)
	if err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, pprof.StartCPUProfile(f)
}

// usage is what the server's process has used so far.
type usage struct {
	CPU      time.Duration
	Quotes   map[string]uint64 // by service
	Sessions map[string]uint64
}

// hello is the server's first line.
type hello struct{ Addrs map[string]string }

// server is the process that serves, as the one that measures sees it.
type server struct {
	hello
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

func start(dir string) (*server, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.Command(exe, "-serve", "-dir", dir, "-profile", *profile)}
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.in, s.out = json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	return s, s.out.Decode(&s.hello)
}

func (s *server) usage() (u usage, err error) {
	if err = s.in.Encode("usage"); err == nil {
		err = s.out.Decode(&u)
	}
	return u, err
}

func (s *server) stop() {
	_ = s.in.Encode("stop")
	_ = s.cmd.Wait()
}

// kind is one sort of connection.
type kind struct {
	name    string
	service string
	connect func(ctx context.Context, addr string) (net.Conn, error)
}

func parent() error {
	tmp, err := os.MkdirTemp("", "benchsession")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	srv, err := start(tmp)
	if err != nil {
		return err
	}
	defer srv.stop()
	simulated, err := relyingParty(tmp)
	if err != nil {
		return err
	}
	bare := ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, trivial{}), anything{}, time.Now)
	kept := session.Options{Protocols: []string{"h2"}, Store: session.NewStore(session.DefaultEntries, time.Now)}
	attested := func(c *ratls.Connector) func(context.Context, string) (net.Conn, error) {
		return func(ctx context.Context, addr string) (net.Conn, error) { return c.Dial(ctx, addr) }
	}
	plainKind := kind{"plain TLS 1.3", "plain", plain}
	protocol := kind{"session, evidence not verified", "instant", attested(ratls.NewConnector(bare, "h2"))}
	kinds := []kind{
		plainKind,
		protocol,
		{"session, TDX quotes of 39 ms, Memo", "tdx-39ms", attested(ratls.NewConnector(simulated, "h2"))},
		{"reconnect", "instant-kept", attested(ratls.NewConnector(bare, "h2").WithSession(kept))},
	}
	slow := protocol
	slow.name, slow.service = "39 ms", "39ms"
	if *only != "" {
		kinds = slices.DeleteFunc(kinds, func(k kind) bool { return k.service != "plain" && k.service != *only })
	}
	stop, err := profiled(".client")
	if err != nil {
		return err
	}
	defer stop()
	r := &report{srv: srv}
	if *only == "" {
		if err := r.rates(protocol, slow); err != nil {
			return err
		}
	}
	if err := r.costs(kinds); err != nil {
		return err
	}
	if r.missed > 0 {
		return fmt.Errorf("%d goals missed", r.missed)
	}
	return nil
}

// relyingParty verifies the simulated machine whose keys are in dir, behind a Memo, by the policy that is proposed for it.
func relyingParty(dir string) (*ratls.RelyingParty, error) {
	machine, err := sim.Open("sim:tdx", dir, time.Now)
	if err != nil {
		return nil, err
	}
	ev, err := machine.Attest(context.Background(), attest.ReportData{1})
	if err != nil {
		return nil, err
	}
	verifier := sim.NewVerifier([]string{machine.Root()})
	claims, err := verifier.Verify(context.Background(), ev, machine.Endorser(), time.Now())
	if err != nil {
		return nil, err
	}
	text, err := policy.Propose(claims, attest.LevelSession, "bench")
	if err != nil {
		return nil, err
	}
	p, err := policy.Parse("bench.yaml", text, policy.NoFiles)
	if err != nil {
		return nil, err
	}
	return ratls.NewRelyingParty(attest.NewAppraiser(machine.Endorser(), attest.NewMemo(verifier)), p, time.Now), nil
}

func plain(ctx context.Context, addr string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// loop lets so many clients connect, one connection after the other each, while more says so, and answers the times taken.
func (r *report) loop(k kind, clients int, more func() bool) ([]time.Duration, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			var mine []time.Duration
			for more() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				begin := time.Now()
				conn, err := k.connect(ctx, r.srv.Addrs[k.service])
				took := time.Since(begin)
				cancel()
				if err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					break
				}
				_ = conn.Close()
				mine = append(mine, took)
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all, failed
}

func upTo(n int) func() bool {
	var done atomic.Int64
	return func() bool { return done.Add(1) <= int64(n) }
}

func during(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().Before(end) }
}

type report struct {
	srv    *server
	missed int
}

func (r *report) goal(value, goal float64, atLeast bool) string {
	word, ok := "at most", value <= goal
	if atLeast {
		word, ok = "at least", value >= goal
	}
	if ok {
		return fmt.Sprintf("(goal: %s %.2f)", word, goal)
	}
	r.missed++
	return fmt.Sprintf("(goal: %s %.2f)  MISSED", word, goal)
}

// rates compares a slow engine with one that takes no time.
func (r *report) rates(instant, slow kind) error {
	type measured struct{ rate, p50, p99, perQuote float64 }
	run := func(k kind, clients int, span time.Duration) (m measured, err error) {
		before, err := r.srv.usage()
		if err != nil {
			return m, err
		}
		begin := time.Now()
		took, err := r.loop(k, clients, during(span))
		if err != nil {
			return m, err
		}
		elapsed := time.Since(begin)
		after, err := r.srv.usage()
		m = measured{
			float64(len(took)) / elapsed.Seconds(), ms(took[len(took)/2]), ms(took[len(took)*99/100]),
			float64(after.Sessions[k.service]-before.Sessions[k.service]) / float64(after.Quotes[k.service]-before.Quotes[k.service]),
		}
		return m, err
	}
	const turns = 3
	quote := ms(quoteTime)
	fmt.Printf("%-28s %10s %10s %10s %16s\n", "engine, clients that wait", "sessions/s", "p50", "p99", "sessions/quote")
	for _, n := range []int{1, 64, *clients} {
		var share, added []float64
		var at, beside []measured
		for range turns {
			x, err := run(slow, n, *span)
			if err != nil {
				return err
			}
			y, err := run(instant, n, *span)
			if err != nil {
				return err
			}
			at, beside = append(at, x), append(beside, y)
			share, added = append(share, x.rate/y.rate), append(added, (x.p50-y.p50)/quote)
		}
		show := func(name string, all []measured) measured {
			pick := func(f func(measured) float64) float64 {
				var v []float64
				for _, m := range all {
					v = append(v, f(m))
				}
				return median(v)
			}
			m := measured{pick(func(m measured) float64 { return m.rate }), pick(func(m measured) float64 { return m.p50 }), pick(func(m measured) float64 { return m.p99 }), pick(func(m measured) float64 { return m.perQuote })}
			fmt.Printf("%-28s %10.0f %7.1f ms %7.1f ms %16.1f\n", fmt.Sprintf("%s, %d", name, n), m.rate, m.p50, m.p99, m.perQuote)
			return m
		}
		x := show("39 ms", at)
		show("instant", beside)
		switch n {
		case 1:
			fmt.Printf("  p50 in quote times: %.2f %s\n", x.p50/quote, r.goal(x.p50/quote, 1.15, false))
		case *clients:
			s, a := median(share), median(added)
			fmt.Printf("  share of the instant engine's rate: %.2f %s\n", s, r.goal(s, 0.90, true))
			fmt.Printf("  p50 added, in quote times: %.2f %s\n", a, r.goal(a, 2.2, false))
		default:
			fmt.Printf("  share of the instant engine's rate: %.2f; p50 added, in quote times: %.2f\n", median(share), median(added))
		}
	}
	return nil
}

// costs compares the CPU time of one connection of each kind with that of the first.
func (r *report) costs(kinds []kind) error {
	type cost struct{ client, server, both, ratio []float64 }
	costs := make([]cost, len(kinds))
	for _, k := range kinds { // warm up: whoever reconnects has to have been here
		if _, err := r.loop(k, 1, upTo(2)); err != nil {
			return err
		}
	}
	for range *rounds {
		for i, k := range kinds {
			before, err := r.srv.usage()
			if err != nil {
				return err
			}
			mine := cpu()
			if _, err := r.loop(k, *clients, upTo(*each)); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			client := cpu() - mine
			after, err := r.srv.usage()
			if err != nil {
				return err
			}
			per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(*each) }
			c := &costs[i]
			x, y := per(client), per(after.CPU-before.CPU)
			c.client, c.server, c.both = append(c.client, x), append(c.server, y), append(c.both, x+y)
			c.ratio = append(c.ratio, (x+y)/costs[0].both[len(c.ratio)])
		}
	}
	fmt.Printf("\n%-36s %10s %10s %10s %8s\n", "CPU µs of one connection", "client", "server", "both", "÷ plain")
	for i, k := range kinds {
		c := costs[i]
		goal := ""
		switch k.service {
		case "plain":
		case "instant-kept":
			goal = r.goal(median(c.ratio), 1.2, false)
		default:
			goal = r.goal(median(c.ratio), 1.6, false)
		}
		fmt.Printf("%-36s %10.0f %10.0f %10.0f %8.2f  %s\n", k.name, median(c.client), median(c.server), median(c.both), median(c.ratio), goal)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
