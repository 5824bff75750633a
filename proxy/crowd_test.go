package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
)

var crowd = flag.Int("crowd", 150, "how many connections TestCrowd has open, for as long as -chaos says")

// swapping changes the configuration over and over until ctx ends: routes, their clusters, the weight of an endpoint, and a listener
// that comes and goes. It answers how often.
func swapping(ctx context.Context, t *testing.T, r *proxy.Runtime, b *builder, to func(n int) *config.Config) (n int) {
	for ; ctx.Err() == nil; n++ {
		if err := r.Apply(ctx, to(n), "1", b); err != nil && ctx.Err() == nil {
			t.Errorf("change %d: %v", n, err)
			return n
		}
		for _, l := range r.Listeners() {
			if l.Stats.Active < 0 {
				t.Errorf("%s: %d connections", l.Name, l.Stats.Active)
				return n
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return n
}

// crowdConfig is the nth configuration of a crowd's proxy.
func crowdConfig(n int, services loadServices, limits config.Limits) *config.Config {
	name := []string{"even", "odd"}[n%2]
	raw := clusterOf("raw", services.TCP)
	raw.Endpoints[0].Weight = uint32(1 + n%3)
	raw.CircuitBreakers.MaxConnections = limits.Connections // each client has one, and a breaker's default is far less than a crowd
	c := &config.Config{
		Listeners: []config.Listener{
			{Address: "web", Serving: config.Serving{HTTP: allTo(name)}, Limits: limits},
			{Address: "raw", Serving: config.Serving{TCP: true, Cluster: "raw"}, Limits: limits},
		},
		Clusters: []config.Cluster{clusterOf(name, services.HTTP), raw},
	}
	if n%3 == 1 {
		c.Listeners = append(c.Listeners, config.Listener{Address: "passing", Serving: config.Serving{Plain: true, HTTP: allTo(name)}})
	}
	return c
}

// TestCrowd has many connections open, over HTTP/1.1, HTTP/2 and TCP, whose ends fail in every way that they can, and services
// that are killed under them. Every answer that is whole is checked byte for byte, and every failure has to have a cause. When
// they have gone, nothing is left of them. The configuration is swapped under them all the while. Clients and services are in a process of their own: what is counted here, memory
// and descriptors, is the proxy's.
func TestCrowd(t *testing.T) {
	before := goleak.IgnoreCurrent()
	runtime.GC()
	descriptors := openFiles(t)
	t.Run("load", func(t *testing.T) { crowded(t, *crowd, *chaos) })
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	until(t, "every descriptor to be closed", func() bool { return openFiles(t) <= descriptors })
}

func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(all)
}

// resident is how much memory the process has, in bytes.
func resident(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// inUse is what the process uses of the memory that it has.
func inUse() int {
	var m runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

func crowded(t *testing.T, n int, lasts time.Duration) {
	child := exec.Command(os.Args[0], "-test.run=^$", "-load", strconv.Itoa(n), "-chaos", lasts.String())
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
		_ = in.Close() // it ends by that
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
	}()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	hear := func(to any) {
		t.Helper()
		if !lines.Scan() {
			t.Fatal("the load has ended: ", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), to); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
	}
	var services loadServices
	hear(&services)

	r, build := running(t), newBuilder(t)
	// A connection that ends for its age may meet a request, which then fails for no fault that was made. That of the head counts for
	// one without any request too: net/http keeps what it dialled for a request that was cancelled meanwhile.
	limits := config.Limits{Connections: 2 * n, Times: config.Times{KeepAlive: time.Hour, Header: time.Hour}}
	configure := func(n int) *config.Config { return crowdConfig(n, services, limits) }
	apply(t, r, configure(0), "1", build)
	active := func() (open int64) {
		for _, l := range r.Listeners() {
			open += l.Stats.Active
		}
		return open
	}
	used, held := inUse(), resident(t)
	fmt.Fprintf(in, "{%q:%q,%q:%q}\n", "HTTP", build.address("web"), "TCP", build.address("raw"))

	var opened loadOpened
	hear(&opened)
	at := active()
	t.Logf("%d connections open after %v, %d at the proxy; %d bytes in use and %d resident for each", opened.Open, opened.Took.Round(time.Millisecond),
		at, (inUse()-used)/n, (resident(t)-held)/n)
	if opened.Open != n || at != int64(n) {
		t.Errorf("%d connections, %d at the proxy, instead of %d", opened.Open, at, n)
	}

	ctx, stop := context.WithCancel(t.Context())
	var changes sync.WaitGroup
	changes.Go(func() { t.Logf("%d changes of configuration", swapping(ctx, t, r, build, configure)) })
	_, _ = io.WriteString(in, "{}\n") // go
	var result loadResult
	hear(&result)
	stop()
	changes.Wait()
	result.report(t)
	until(t, "every connection to be closed", func() bool { return active() == 0 })
	t.Logf("%d bytes in use and %d resident for each afterwards", (inUse()-used)/n, (resident(t)-held)/n)
}
