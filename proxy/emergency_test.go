package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	policyfile "github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

var emergency = flag.Int("emergency", 200, "how many connections TestEmergency has open")

// emergencyPlatforms is what the process with the clients begins with: the roots of its platforms, by generation, and where the
// services are.
type emergencyPlatforms struct {
	Roots     map[string]string
	HTTP, TCP string
}

// emergencyProxies answers it.
type emergencyProxies struct{ Root, HTTP, TCP string }

// emergencyResult is what has become of the clients.
type emergencyResult struct {
	Refused, Ended int       // connections of the generation that was denied, and how many of them have ended
	Last           time.Time // when the last one has
	Proper         int       // of those in the middle of something, how many look as if they had come to a proper end
	Others, Good   int       // the others, and how many of them are as good as ever
	Streams        int       // that went on all the time
	Bytes          int64     // that they have checked
	Wrong          []string
}

// TestEmergency has many connections open, of peers on three generations of a platform, in both tiers, over HTTP/1.1, HTTP/2 and
// TCP, when one of the generations is denied. All of that generation end within 250 ms, and no other one notices anything. make
// emergency has 10,000.
func TestEmergency(t *testing.T) {
	n := *emergency
	child := exec.Command(os.Args[0], "-test.run=^$", "-emergencyclients", strconv.Itoa(n))
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
	}()
	hear, say := json.NewDecoder(out), json.NewEncoder(in)
	var theirs emergencyPlatforms
	if err := hear.Decode(&theirs); err != nil {
		t.Fatal(err)
	}

	platform, err := sim.New(sim.Config{Product: "genoa"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := ratls.NewIdentity(t.Context(), platform, []string{"127.0.0.1"}, [32]byte{1}, ratls.IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var roots []string
	for _, r := range theirs.Roots {
		roots = append(roots, r)
	}
	parse := func(deny string) *policyfile.Policy {
		var b strings.Builder
		b.WriteString("policy: p\nplatforms:\n  allow:\n")
		for _, r := range roots {
			fmt.Fprintf(&b, "  - {vendor: sim, root: %q}\n", r)
		}
		b.WriteString(deny + "workload: {measurement: any, debug: off}\nbinding: key\n")
		p, err := policyfile.Parse("p.yaml", []byte(b.String()), policyfile.NoFiles)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	appraiser := attest.NewAppraiser(attest.NoEndorser{}, attest.NewMemo(sim.NewVerifier(roots)))
	e := enforce.New(func(attest.Stack) *attest.Appraiser { return appraiser }, time.Now, nil)
	e.Apply(t.Context(), enforce.Change{
		Policies: map[string]attest.Policy{"floor": parse(""), "pushed": parse("")}, Places: map[string][]string{"in": {"floor", "pushed"}},
	})
	rp := ratls.NewEnforcedParty(e.Place("in"), time.Now)
	handshake := func(protos ...string) proxy.Handshake {
		a := ratls.NewMutualAcceptor(id, rp, protos...)
		return func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
			c, err := a.Handshake(ctx, raw)
			if err != nil {
				return nil, err
			}
			return c, nil
		}
	}
	limits := proxy.Limits{Connections: 2 * n, Peer: -1, KeepAlive: time.Hour, Header: time.Hour, Handshake: time.Minute, Crowded: time.Minute}
	eng := engine(t)
	web := proxy.NewHTTP(eng, handshake("h2", "http/1.1"), proxy.RouteTo(cluster(t, upstream.Config{
		Name: "web", CircuitBreakers: upstream.CircuitBreakers{MaxConnections: -1, MaxPendingRequests: -1, MaxRequests: -1, MaxRetries: -1},
	}, theirs.HTTP)), nil, limits)
	raw := proxy.NewTCP(eng, handshake(), cluster(t, upstream.Config{
		Name: "raw", CircuitBreakers: upstream.CircuitBreakers{MaxConnections: -1, MaxPendingRequests: -1, MaxRequests: -1, MaxRetries: -1},
	}, theirs.TCP), nil, limits)
	began := time.Now()
	if err := say.Encode(emergencyProxies{platform.Root(), start(t, web), start(t, raw)}); err != nil {
		t.Fatal(err)
	}
	var opened loadOpened
	if err := hear.Decode(&opened); err != nil {
		t.Fatal(err)
	}
	stats := e.Stats()
	t.Logf("%d connections in %s: %v", opened.Open, time.Since(began).Round(time.Millisecond), stats.Open)
	if opened.Open != n || len(e.Standing()) != n || len(stats.Open) < 3 {
		t.Fatalf("%d connections are open at the clients, %d here", opened.Open, len(e.Standing()))
	}
	denied := parse("  deny: [{vendor: sim, generation: milan, because: \"a rehearsal\"}]\n")
	if plan := e.Preview(t.Context(), "pushed", denied); plan.Refused == 0 || plan.Refused == n {
		t.Errorf("a plan to refuse %d", plan.Refused)
	}

	refuses := 2 * n / 5
	usage := cpu()
	pushed := time.Now()
	sweep := e.Replace(t.Context(), "pushed", denied)
	until(t, "all of them to be closed here", func() bool {
		return web.Stats().Active+raw.Stats().Active <= int64(n-refuses)
	})
	closed, used := time.Since(pushed), cpu()-usage
	if err := say.Encode(struct{}{}); err != nil {
		t.Fatal(err)
	}
	var got emergencyResult
	if err := hear.Decode(&got); err != nil {
		t.Fatal(err)
	}
	took := got.Last.Sub(pushed)
	t.Logf("%d judged and %d refused in %s; the last one has ended after %s, and is forgotten here after %s, which took %s of the processor; %d others, %d streams with %d bytes",
		sweep.Judged, sweep.Refused, sweep.Took.Round(100*time.Microsecond), took.Round(100*time.Microsecond), closed.Round(time.Millisecond), used.Round(time.Millisecond), got.Others, got.Streams, got.Bytes)
	for _, w := range got.Wrong {
		t.Error(w)
	}
	if got.Ended != got.Refused || sweep.Refused != got.Refused || got.Proper != 0 || got.Good != got.Others || got.Others+got.Refused != n {
		t.Errorf("%+v", got)
	}
	most := 250 * time.Millisecond
	if n < 1000 { // among other tests, under the race detector, on a machine with other things to do
		most = 10 * time.Second
	}
	if took > most {
		t.Errorf("%s, more than %s", took, most)
	}
	for _, o := range e.Standing() {
		if o.Result.Claims().Generation == "milan" {
			t.Errorf("%s stands", o.Peer)
		}
	}
}

// cpu is how much time of the processors this process has had.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// An answer of the service: enough to tell one that is cut.
var emergencyAnswer = bytes.Repeat([]byte("0123456789abcdef"), 16)

func emergencyServices() (web, raw net.Listener, err error) {
	if web, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, nil, err
	}
	if raw, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, nil, err
	}
	go func() {
		_ = http.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(emergencyAnswer) }))
	}()
	go func() {
		for {
			c, err := raw.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, bufio.NewReaderSize(c, 2048))
			}()
		}
	}()
	return web, raw, nil
}
