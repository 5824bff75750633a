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
)

var crowd = flag.Int("crowd", 150, "how many connections TestCrowd has open, for as long as -chaos says")

// meanwhile is what goes on in the proxy's process while the crowd is there, over and over until the context ends. What swaps
// configuration under load belongs here.
var meanwhile = []struct {
	name string
	do   func(context.Context, *proxy.Server) error
}{
	{"statistics", func(_ context.Context, s *proxy.Server) error {
		if n := s.Stats().Active; n < 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	}},
}

// TestCrowd has many connections open, over HTTP/1.1, HTTP/2 and TCP, whose ends fail in every way that they can, and services
// that are killed under them. Every answer that is whole is checked byte for byte, and every failure has to have a cause. When
// they have gone, nothing is left of them. Clients and services are in a process of their own: what is counted here, memory
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

	e := engine(t)
	limits := proxy.Limits{Connections: 2 * n, KeepAlive: time.Hour}
	web, err := proxy.NewInboundHTTP(e, shake(nil, "h2", "http/1.1"), backend(t, services.HTTP), nil, limits)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proxy.NewInboundTCP(e, shake(nil), backend(t, services.TCP), nil, limits)
	if err != nil {
		t.Fatal(err)
	}
	used, held := inUse(), resident(t)
	fmt.Fprintf(in, "{%q:%q,%q:%q}\n", "HTTP", start(t, web), "TCP", start(t, raw))

	var opened loadOpened
	hear(&opened)
	active := web.Stats().Active + raw.Stats().Active
	t.Logf("%d connections open after %v, %d at the proxy; %d bytes in use and %d resident for each", opened.Open, opened.Took.Round(time.Millisecond),
		active, (inUse()-used)/n, (resident(t)-held)/n)
	if opened.Open != n || active != int64(n) {
		t.Errorf("%d connections, %d at the proxy, instead of %d", opened.Open, active, n)
	}

	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for _, m := range meanwhile {
		others.Go(func() {
			rounds := 0
			for ; ctx.Err() == nil; rounds++ {
				for _, s := range []*proxy.Server{web, raw} {
					if err := m.do(ctx, s); err != nil {
						t.Errorf("%s: %v", m.name, err)
						return
					}
				}
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
			t.Logf("%s: %d times", m.name, rounds)
		})
	}
	_, _ = io.WriteString(in, "{}\n") // go
	var result loadResult
	hear(&result)
	stop()
	others.Wait()
	result.report(t)
	until(t, "every connection to be closed", func() bool { return web.Stats().Active == 0 && raw.Stats().Active == 0 })
	t.Logf("%d bytes in use and %d resident for each afterwards; %+v", (inUse()-used)/n, (resident(t)-held)/n, web.Stats())
}
