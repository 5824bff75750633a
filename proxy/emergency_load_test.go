package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
)

// What follows is the other process of TestEmergency: the clients and the services.

var emergencyLoad = flag.Int("emergencyclients", 0, "be the other process of TestEmergency, with that many clients")

func emergencyClients() bool {
	if *emergencyLoad == 0 {
		return false
	}
	if err := runEmergency(*emergencyLoad); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// guest is a client that stays.
type guest struct {
	denied   bool
	kind     string // "http/1.1", "h2" or "tcp"
	streams  bool
	conn     *ratls.Conn
	answered chan struct{}
	ended    chan struct{}
	at       time.Time // when it ended
	err      error     // by what
	told     bool      // by GOAWAY
	bytes    atomic.Int64
	framer   *http2.Framer
	next     uint32
	wmu      sync.Mutex
}

func runEmergency(n int) error {
	generations := []string{"milan", "milan", "genoa", "genoa", "turin"} // two of five are denied
	roots := map[string]string{}
	ids := map[string][]*ratls.Identity{}
	for _, g := range generations {
		if ids[g] != nil {
			continue
		}
		platform, err := sim.New(sim.Config{Product: g})
		if err != nil {
			return err
		}
		roots[g] = platform.Root()
		for range 3 {
			id, err := ratls.NewIdentity(context.Background(), platform, nil, [32]byte{2}, ratls.IdentityOptions{})
			if err != nil {
				return err
			}
			ids[g] = append(ids[g], id)
		}
	}
	web, raw, err := emergencyServices()
	if err != nil {
		return err
	}
	say, hear := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	var proxies emergencyProxies
	if err := errors.Join(say.Encode(emergencyPlatforms{roots, web.Addr().String(), raw.Addr().String()}), hear.Decode(&proxies)); err != nil {
		return err
	}
	verifier := attest.NewMemo(sim.NewVerifier([]string{proxies.Root}))
	rp := ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, verifier), policy{}, time.Now)

	began := time.Now()
	guests := make([]*guest, n)
	var opening sync.WaitGroup
	var open, failed atomic.Int64
	turns := make(chan struct{}, 64)
	for i := range guests {
		g := &guest{kind: []string{"http/1.1", "http/1.1", "h2", "tcp"}[i/5%4], answered: make(chan struct{}, 1), ended: make(chan struct{})}
		generation := generations[i%5]
		g.denied = generation == "milan"
		g.streams = g.kind == "tcp" && i%100 < 20 || n < 1000 && g.kind == "tcp"
		guests[i] = g
		addr, protos := proxies.HTTP, []string{g.kind}
		if g.kind == "tcp" {
			addr, protos = proxies.TCP, nil
		}
		c := ratls.NewMutualConnector(ids[generation][i/20%3], rp, protos...)
		if i/20%4 == 0 {
			c = c.CertificateOnly()
		}
		turns <- struct{}{}
		opening.Go(func() {
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var err error
			if g.conn, err = c.Dial(ctx, addr); err == nil {
				err = g.arrive()
			}
			if err != nil {
				if failed.Add(1) == 1 {
					fmt.Fprintln(os.Stderr, "opening:", err)
				}
				return
			}
			open.Add(1)
		})
	}
	opening.Wait()
	stop := make(chan struct{})
	for i, g := range guests {
		if g.streams {
			go g.stream(uint64(i), stop)
		}
	}
	time.Sleep(500 * time.Millisecond) // streams are under way
	var begin struct{}
	if err := errors.Join(say.Encode(loadOpened{int(open.Load()), time.Since(began)}), hear.Decode(&begin)); err != nil {
		return err
	}

	// By now it has happened.
	r := emergencyResult{}
	var mu sync.Mutex
	wrong := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if len(r.Wrong) < 20 {
			r.Wrong = append(r.Wrong, fmt.Sprintf(format, args...))
		}
	}
	limit := time.After(10 * time.Second)
	for _, g := range guests {
		if !g.denied {
			continue
		}
		r.Refused++
		select {
		case <-g.ended:
			if r.Ended++; g.at.After(r.Last) {
				r.Last = g.at
			}
			if g.kind == "tcp" && errors.Is(g.err, io.EOF) && !errors.Is(g.err, io.ErrUnexpectedEOF) {
				r.Proper++
			}
			if g.kind == "h2" && !g.told {
				wrong("h2 ended without a GOAWAY: %v", g.err)
			}
		case <-limit:
		}
	}
	time.Sleep(500 * time.Millisecond) // the others go on
	var checks sync.WaitGroup
	var good atomic.Int64
	for _, g := range guests {
		if g.denied {
			continue
		}
		r.Others++
		turns <- struct{}{}
		checks.Go(func() {
			defer func() { <-turns }()
			if err := g.fine(); err != nil {
				wrong("%s: %v", g.kind, err)
				return
			}
			good.Add(1)
		})
	}
	checks.Wait()
	close(stop)
	for _, g := range guests {
		if g.streams && !g.denied {
			r.Streams++
			r.Bytes += g.bytes.Load()
		}
	}
	r.Good = int(good.Load())
	if err := say.Encode(&r); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// arrive says something first, and leaves a reader behind.
func (g *guest) arrive() error {
	switch g.kind {
	case "tcp":
		if g.streams {
			go g.end(nil) // the stream reads
			return nil
		}
		go g.read(func() error { _, err := io.ReadFull(g.conn, make([]byte, 8)); return err })
	case "h2":
		g.next = 1
		g.framer = http2.NewFramer(g.conn, g.conn)
		if _, err := io.WriteString(g.conn, http2.ClientPreface); err != nil {
			return err
		}
		if err := g.framer.WriteSettings(); err != nil {
			return err
		}
		go g.read(g.frame)
	default:
		r := bufio.NewReader(g.conn)
		go g.read(func() error {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				return err
			}
			body, err := io.ReadAll(res.Body)
			if err == nil && !bytes.Equal(body, emergencyAnswer) {
				err = fmt.Errorf("another answer: %d %q", res.StatusCode, body)
			}
			return err
		})
	}
	return g.fine()
}

// end notes the end.
func (g *guest) end(err error) {
	if err != nil {
		g.at, g.err = time.Now(), err
		close(g.ended)
	}
}

// read waits for answers until the end.
func (g *guest) read(one func() error) {
	for {
		if err := one(); err != nil {
			g.end(err)
			return
		}
		g.answered <- struct{}{}
	}
}

func (g *guest) frame() error {
	for {
		f, err := g.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			if f.StreamEnded() {
				return nil
			}
		case *http2.GoAwayFrame:
			g.told = f.ErrCode == http2.ErrCodeInadequateSecurity
		case *http2.RSTStreamFrame:
			return fmt.Errorf("stream reset: %s", f.ErrCode)
		case *http2.SettingsFrame:
			if !f.IsAck() {
				g.wmu.Lock()
				err := g.framer.WriteSettingsAck()
				g.wmu.Unlock()
				if err != nil {
					return err
				}
			}
		}
	}
}

// fine asks for something, and gets it.
func (g *guest) fine() error {
	var err error
	switch {
	case g.streams:
		before := g.bytes.Load()
		for end := time.Now().Add(20 * time.Second); g.bytes.Load() == before; time.Sleep(5 * time.Millisecond) {
			select {
			case <-g.ended:
				return g.err
			default:
			}
			if before == 0 { // it has not begun
				return nil
			}
			if time.Now().After(end) {
				return errors.New("nothing moves")
			}
		}
		return nil
	case g.kind == "tcp":
		_, err = io.WriteString(g.conn, "12345678")
	case g.kind == "h2":
		var head strings.Builder
		e := hpack.NewEncoder(&head)
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/"}} {
			_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		g.wmu.Lock()
		err = g.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: g.next, BlockFragment: []byte(head.String()), EndHeaders: true, EndStream: true})
		g.next += 2
		g.wmu.Unlock()
	default:
		_, err = io.WriteString(g.conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	if err != nil {
		return err
	}
	select {
	case <-g.answered:
		return nil
	case <-g.ended:
		return g.err
	case <-time.After(20 * time.Second):
		return errors.New("no answer")
	}
}

// stream sends blocks with their checksums, and checks what comes back.
func (g *guest) stream(seed uint64, stop chan struct{}) {
	block := make([]byte, 2048)
	back := make([]byte, len(block))
	for n := seed << 32; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		binary.BigEndian.PutUint64(block, n)
		h := fnv.New64a()
		_, _ = h.Write(block[:len(block)-8])
		binary.BigEndian.PutUint64(block[len(block)-8:], h.Sum64())
		_, err := g.conn.Write(block)
		if err == nil {
			_, err = io.ReadFull(g.conn, back)
		}
		if err == nil && !bytes.Equal(block, back) {
			err = errors.New("other bytes came back")
		}
		if err != nil {
			g.end(err)
			return
		}
		g.bytes.Add(int64(len(block)))
		time.Sleep(50 * time.Millisecond)
	}
}
