package handover_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/proxy/handover"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func tcp(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// answer serves ln with a name until it is closed.
func answer(ln net.Listener, name string, all *sync.WaitGroup) {
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			c.Close()
		}
	})
}

// TestHandover: a chain of processes, and clients all the while, none of which is refused.
func TestHandover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if i, err := handover.Take(t.Context(), path); i != nil || err != nil {
		t.Fatalf("nobody is there: %v, %v", i, err)
	}
	ln := tcp(t)
	addr := ln.Addr().String()
	unixPath := filepath.Join(t.TempDir(), "u")
	unixLn, err := net.Listen("unix", unixPath)
	if err != nil {
		t.Fatal(err)
	}
	var clients, servers sync.WaitGroup
	var stop atomic.Bool
	var asked atomic.Int64
	for _, to := range []struct{ network, address string }{{"tcp", addr}, {"unix", unixPath}} {
		clients.Go(func() {
			for !stop.Load() {
				c, err := net.Dial(to.network, to.address)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := io.ReadAll(c); err != nil || !bytes.HasPrefix(got, []byte("server ")) {
					t.Errorf("got %q, %v", got, err)
				}
				c.Close()
				asked.Add(1)
			}
		})
	}
	sockets := map[string]net.Listener{"web": ln, "sock": unixLn}
	offer := func(sockets map[string]net.Listener, generation int) io.Closer {
		for _, ln := range sockets {
			answer(ln, fmt.Sprint("server ", generation), &servers)
		}
		place, err := handover.Prepare(path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := place.Offer(func() map[string]net.Listener { return sockets }, func() {
			for _, ln := range sockets {
				if u, ok := ln.(*net.UnixListener); ok {
					u.SetUnlinkOnClose(false)
				}
				ln.Close()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	last := offer(sockets, 0)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for generation := 1; generation <= 20; generation++ {
		i, err := handover.Take(t.Context(), path)
		if err != nil || i == nil {
			t.Fatalf("generation %d: %v, %v", generation, i, err)
		}
		next := map[string]net.Listener{}
		for name := range sockets {
			ln, ok := i.Listener(name)
			if !ok {
				t.Fatalf("generation %d: no %s", generation, name)
			}
			if _, again := i.Listener(name); again {
				t.Error("the same one twice")
			}
			next[name] = ln
		}
		if generation%3 == 0 { // one that dies before it is ready
			i.Close()
			for _, ln := range next {
				if u, ok := ln.(*net.UnixListener); ok {
					u.SetUnlinkOnClose(false)
				}
				ln.Close()
			}
			continue
		}
		now := offer(next, generation)
		if err := i.Ready(); err != nil {
			t.Fatalf("generation %d: %v", generation, err)
		}
		last.Close()
		last = now
		before := asked.Load()
		for asked.Load() < before+10 {
			runtime.Gosched()
		}
	}
	stop.Store(true)
	clients.Wait()
	if i, err := handover.Take(t.Context(), path); err != nil || i == nil {
		t.Errorf("the last one is not there: %v, %v", i, err)
	} else if err := i.Ready(); err != nil {
		t.Error(err)
	}
	last.Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	servers.Wait()
}

// TestNonsense at the other end.
func TestNonsense(t *testing.T) {
	for name, say := range map[string]string{"nothing": "", "words": "hello", "an address without a socket": `["web"]`} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := ln.Accept()
				if err == nil {
					_, _ = io.WriteString(c, say)
					c.Close()
				}
			}()
			if i, err := handover.Take(context.Background(), path); err == nil {
				t.Errorf("taken: %v", i)
			}
			<-done
		})
	}
	path := filepath.Join(t.TempDir(), "s")
	left := false
	place, err := handover.Prepare(path)
	if err != nil {
		t.Fatal(err)
	}
	o, err := place.Offer(func() map[string]net.Listener { return nil }, func() { left = true })
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "nonsen")
	_, _ = io.ReadAll(c)
	c.Close()
	// One that says nothing does not keep the offer from ending.
	c, err = net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
	c.Close()
	if left {
		t.Error("it has left")
	}
	precious := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "not", "there"), precious} {
		if _, err := handover.Prepare(path); err == nil {
			t.Errorf("%s: offered where nothing can be", path)
		}
	}
	if raw, err := os.ReadFile(precious); err != nil || string(raw) != "x" {
		t.Errorf("a file was taken for a socket: %v", err)
	}
}

// TestAbandonedHandover: a successor that leaves before it is ready has changed nothing, not even how the sockets wait.
func TestAbandonedHandover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, closed := tcp(t), tcp(t)
	closed.Close() // one that a change of the configuration has done away with
	place, err := handover.Prepare(path)
	if err != nil {
		t.Fatal(err)
	}
	o, err := place.Offer(func() map[string]net.Listener { return map[string]net.Listener{"web": ln, "gone": closed} }, func() { t.Error("it has left") })
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := ln.Accept()
		accepted <- err
	}()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Read(make([]byte, 100))
	c.Close()
	if i, err := handover.Take(t.Context(), path); err != nil || i == nil {
		t.Errorf("after one that gave up: %v, %v", i, err)
	} else {
		if other, ok := i.Listener("web"); !ok {
			t.Error("no socket")
		} else {
			other.Close()
		}
		i.Close()
	}
	ln.Close() // ends Accept, which it can't where the socket waits
	if err := <-accepted; err == nil {
		t.Error("accepted from nobody")
	}
	o.Close()
}
