package proxy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/loop"
)

var chaos = flag.Duration("chaos", 2*time.Second, "how long TestChaos runs, each of its parts")

// stream is what id makes of n bytes: no two are alike.
func stream(id uint64, n int64) io.Reader {
	var seed [32]byte
	copy(seed[:], strconv.FormatUint(id, 10))
	return io.LimitReader(rand.NewChaCha8(seed), n)
}

// chaotic answers with what it was sent, turned by one, and more of its own; or fails at some stage of it.
func chaotic(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, _ := strconv.ParseUint(q.Get("id"), 10, 64)
	more, _ := strconv.ParseInt(q.Get("more"), 10, 64)
	fail := func(stage string) {
		if q.Get("fault") == stage {
			panic(http.ErrAbortHandler)
		}
	}
	if q.Get("fault") == "stall" {
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	fail("head")
	if q.Get("fault") == "early" {
		w.Header().Set("X-Id", q.Get("id"))
		w.WriteHeader(http.StatusForbidden)
		return
	}
	w.Header().Set("X-Id", q.Get("id"))
	w.Header().Set("Trailer", "X-Sum")
	if q.Get("hints") != "" {
		w.WriteHeader(http.StatusEarlyHints)
		if r.Context().Err() != nil { // net/http has not waited until it has read the header, which is not to be changed then
			panic(http.ErrAbortHandler)
		}
	}
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	body := r.Body.(io.Reader)
	if r.ProtoMajor == 1 { // net/http can't do both at once there
		all, err := io.ReadAll(body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		body = bytes.NewReader(all)
	}
	if _, err := io.Copy(out, body); err != nil {
		panic(http.ErrAbortHandler)
	}
	fail("body")
	_, _ = io.CopyN(out, stream(id, more), more/2)
	fail("answer")
	rest := stream(id, more)
	_, _ = io.CopyN(io.Discard, rest, more/2)
	_, _ = io.Copy(out, rest)
	w.Header().Set("X-Sum", hex.EncodeToString(sum.Sum(nil)))
	if q.Get("fault") == "close" && r.ProtoMajor == 1 { // of HTTP/2 it would end what others have asked for
		w.Header().Set("Connection", "close")
	}
}

var chaosIDs atomic.Uint64

// chaoticRequest asks for something, and checks that the answer is the one to it.
func chaoticRequest(ctx context.Context, t *testing.T, c *http.Client, done *atomic.Int64) {
	id := chaosIDs.Add(1)
	sizes := []int64{0, 1, 1000, 20_000, 70_000, 300_000, 700_000}
	up, more := sizes[rand.IntN(len(sizes))], sizes[rand.IntN(len(sizes))]
	faults := []string{"", "", "", "", "", "head", "body", "answer", "stall", "early", "close"}
	fault := faults[rand.IntN(len(faults))]
	url := "http://x/?id=" + strconv.FormatUint(id, 10) + "&more=" + strconv.FormatInt(more, 10) + "&fault=" + fault
	if rand.IntN(4) == 0 {
		url += "&hints=1"
	}
	leaves := rand.IntN(8) == 0
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if leaves {
		time.AfterFunc(time.Duration(rand.IntN(15_000))*time.Microsecond, cancel)
	}
	method, body := http.MethodGet, io.Reader(nil)
	if up > 0 {
		method, body = http.MethodPost, stream(^id, up)
		if rand.IntN(2) == 0 {
			body = io.MultiReader(body) // of unknown length
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Error(err)
		return
	}
	if fault == "" && rand.IntN(3) == 0 && up > 0 {
		req.ContentLength = up
	}
	if rand.IntN(5) == 0 {
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
	}
	harmless := !leaves && (fault == "" || fault == "stall" || fault == "close")
	res, err := c.Do(req)
	if err != nil {
		if harmless && ctx.Err() == nil {
			t.Errorf("request %d: %v", id, err)
		} else if timeout(err) {
			t.Errorf("request %d (%s) hangs: %v", id, fault, err)
		}
		return
	}
	defer res.Body.Close()
	if said := res.Header.Get("X-Id"); res.StatusCode < 500 && said != strconv.FormatUint(id, 10) {
		t.Errorf("request %d was answered for %s with %s", id, said, res.Status)
	}
	got, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK || err != nil {
		if harmless && ctx.Err() == nil {
			t.Errorf("request %d (%s, %d bytes up, %d down): %s, %v", id, fault, up, more, res.Status, err)
		} else if timeout(err) {
			t.Errorf("request %d (%s) hangs: %v", id, fault, err)
		}
		return
	}
	want, _ := io.ReadAll(io.MultiReader(stream(^id, up), stream(id, more)))
	sum := sha256.Sum256(want)
	if !bytes.Equal(got, want) || res.Trailer.Get("X-Sum") != hex.EncodeToString(sum[:]) {
		t.Errorf("request %d (%s): %d bytes instead of %d, or others", id, fault, len(got), len(want))
	}
	done.Add(1)
}

// TestChaos has many clients and a service that fail at any time. Whatever is answered is answered right, nothing hangs, and
// nothing is left.
func TestChaos(t *testing.T) {
	addr := origin(t, http.HandlerFunc(chaotic))
	for _, scheme := range []string{"", "h2c://"} {
		t.Run(scheme+"service", func(t *testing.T) {
			logs := new(journal)
			in := inboundHTTP(t, shake(nil, "h2", "http/1.1"), scheme+addr, proxy.Limits{}, logs.logger())
			at := start(t, in)
			defer func() {
				if t.Failed() {
					t.Log(logs)
				}
			}()
			var done atomic.Int64
			end := time.Now().Add(*chaos)
			var wg sync.WaitGroup
			for i := range 6 {
				c := client(t, direct(at), []string{"http/1.1", "h2"}[i%2])
				c.Timeout = 20 * time.Second
				for range 4 {
					wg.Go(func() {
						for time.Now().Before(end) {
							chaoticRequest(t.Context(), t, c, &done)
						}
					})
				}
			}
			wg.Wait()
			if done.Load() == 0 {
				t.Error("no request was answered")
			}
			t.Logf("%d requests", done.Load())
			ended(t, in)
		})
	}
	t.Run("drain", func(t *testing.T) {
		in := inboundHTTP(t, shake(nil, "h2", "http/1.1"), addr, proxy.Limits{}, nil)
		at := start(t, in)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 12 {
			c := client(t, direct(at), []string{"http/1.1", "h2"}[i%2])
			wg.Go(func() {
				id := strconv.FormatUint(chaosIDs.Add(1), 10)
				res, err := c.Post("http://x/?more=70000&fault=stall&id="+id, "", stream(1, 300_000))
				if err != nil {
					return // it came too late
				}
				defer res.Body.Close()
				if n, err := io.Copy(io.Discard, res.Body); n != 370_000 || err != nil || res.Header.Get("X-Id") != id {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
		}
		time.Sleep(15 * time.Millisecond)
		if err := in.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		wg.Wait()
		ended(t, in)
	})
	t.Run("tcp", func(t *testing.T) { chaosTCP(t) })
}

func ended(t *testing.T, s *proxy.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("%d connections had to be cut off: %v", s.Stats().Active, err)
	}
	if n := s.Stats().Active; n != 0 {
		t.Errorf("%d connections left", n)
	}
}

// dialWatched is dialTLS, with what tells of a reset that TLS takes for an end: the kernel tells one of the two that wait, and
// where that is the writer, the reader finds the plain end of the transport.
func dialWatched(ctx context.Context, addr string) (*tls.Conn, func() bool, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	tr := &toldWriter{Conn: raw, wrote: make(chan struct{})}
	watched := proxy.Watch(tr).(*loop.Wire)
	c, err := overTLS(ctx, watched)
	if err != nil {
		return nil, nil, err
	}
	return c, func() bool {
		if !watched.Truncated() {
			return false
		}
		select {
		case <-tr.wrote:
			return true
		case <-time.After(time.Second):
			return false
		}
	}, nil
}

// toldWriter notes that a write was told of a reset.
type toldWriter struct {
	net.Conn
	once  sync.Once
	wrote chan struct{}
}

func (c *toldWriter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		c.once.Do(func() { close(c.wrote) })
	}
	return n, err
}

// chaosTCP: either end may end or break off a connection at any time. What arrives is what was sent, up to where it ends.
func chaosTCP(t *testing.T) {
	addr := rawOrigin(t, func(c *net.TCPConn) {
		if rand.IntN(4) == 0 {
			_, _ = io.CopyN(c, c, rand.Int64N(400_000))
			_ = c.SetLinger(0)
			return
		}
		_, _ = io.Copy(c, c)
	})
	in := inboundTCP(t, shake(nil), addr, proxy.Limits{}, nil)
	at := start(t, in)
	end := time.Now().Add(*chaos)
	var whole atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for time.Now().Before(end) {
				id, size := chaosIDs.Add(1), rand.Int64N(900_000)
				c, reset, err := dialWatched(t.Context(), at)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				var sending sync.WaitGroup
				sending.Go(func() {
					if _, err := io.Copy(c, stream(id, size)); err == nil {
						_ = c.CloseWrite()
					}
				})
				want, n := stream(id, size), int64(0)
				for got, same := make([]byte, 32<<10), make([]byte, 32<<10); ; {
					k, err := c.Read(got)
					_, _ = io.ReadFull(want, same[:k])
					if !bytes.Equal(got[:k], same[:k]) {
						t.Errorf("connection %d: other bytes than were sent", id)
					}
					if n += int64(k); err == nil && rand.IntN(200) == 0 {
						err = net.ErrClosed // the client has had enough
					}
					if errors.Is(err, io.EOF) && n != size {
						if reset() {
							break
						}
						t.Errorf("connection %d ended as if whole after %d of %d bytes", id, n, size)
					} else if errors.Is(err, io.EOF) {
						whole.Add(1)
					} else if timeout(err) {
						t.Errorf("connection %d hangs after %d of %d bytes", id, n, size)
					}
					if err != nil {
						break
					}
				}
				c.NetConn().Close()
				sending.Wait()
			}
		})
	}
	wg.Wait()
	if whole.Load() == 0 {
		t.Error("no connection came to its end")
	}
	t.Logf("%d whole connections", whole.Load())
	ended(t, in)
}
