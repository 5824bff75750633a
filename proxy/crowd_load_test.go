package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/loop"
)

// What follows is the other process of TestCrowd: the clients and the services.

var load = flag.Int("load", 0, "be the other process of TestCrowd, with that many clients")

// loadServices are the addresses of the services, or those of the proxies before them.
type loadServices struct{ HTTP, TCP string }

// loadOpened says that all connections are open.
type loadOpened struct {
	Open int
	Took time.Duration
}

// loadResult is what has come of it.
type loadResult struct {
	Right    map[string]int // answers that were whole, and right
	Faults   map[string]int // that were made
	Failures map[string]int // that had a cause
	Wrong    []string       // what may not be
	Kills    int
	Bytes    int64 // that were checked
}

func (r *loadResult) report(t *testing.T) {
	t.Helper()
	sum := func(m map[string]int) (n int) {
		for v := range maps.Values(m) {
			n += v
		}
		return n
	}
	t.Logf("%d right (%v), %d bytes checked", sum(r.Right), r.Right, r.Bytes)
	t.Logf("%d faults (%v), services killed %d times", sum(r.Faults), r.Faults, r.Kills)
	t.Logf("%d failures with a cause: %v", sum(r.Failures), r.Failures)
	for _, w := range r.Wrong {
		t.Error(w)
	}
	for _, kind := range []string{"http/1.1", "h2", "tcp"} {
		if r.Right[kind] == 0 {
			t.Errorf("nothing went right over %s", kind)
		}
	}
}

// crowdLoad is the whole of that process.
type crowdLoad struct {
	mu     sync.Mutex
	result loadResult
	bytes  atomic.Int64
	ids    atomic.Uint64

	http, tcp  *mortal
	webAt, raw string
	stop       chan struct{} // closed at the end
	gone       atomic.Bool   // the services are
	lost       atomic.Int64  // when they last were, in ns since the epoch
}

// loads runs it, and reports whether that is what this process is for.
func loads() bool {
	if *load == 0 {
		return false
	}
	l := &crowdLoad{stop: make(chan struct{}), result: loadResult{Right: map[string]int{}, Faults: map[string]int{}, Failures: map[string]int{}}}
	if err := l.run(*load, *chaos); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func (l *crowdLoad) run(n int, lasts time.Duration) (err error) {
	if l.http, err = newMortal("127.0.0.2:0", l.serveHTTP); err != nil {
		return err
	}
	defer l.http.kill(1, true)
	if l.tcp, err = newMortal("127.0.0.3:0", serveCommands); err != nil {
		return err
	}
	defer l.tcp.kill(1, true)
	say := json.NewEncoder(os.Stdout)
	hear := json.NewDecoder(os.Stdin)
	var proxies loadServices
	if err := errors.Join(say.Encode(loadServices{l.http.addr, l.tcp.addr}), hear.Decode(&proxies)); err != nil {
		return err
	}
	l.webAt, l.raw = proxies.HTTP, proxies.TCP

	// Of twenty connections one speaks HTTP/2, ten HTTP/1.1, and nine carry something else.
	began := time.Now()
	people := make([]person, n)
	for i := range people {
		switch d := (dialer2{from: i, load: l}); {
		case i%20 == 0:
			people[i] = newWebPerson(l, d, "h2")
		case i%20 <= 10:
			people[i] = newWebPerson(l, d, "http/1.1")
		default:
			people[i] = &tcpPerson{load: l, dialer: d}
		}
	}
	var opening sync.WaitGroup
	var open atomic.Int64
	turns := make(chan struct{}, 64)
	for _, p := range people {
		turns <- struct{}{}
		opening.Go(func() {
			defer func() { <-turns }()
			if err := p.arrive(); err != nil {
				l.wrong("opening: %v", err)
				return
			}
			open.Add(1)
		})
	}
	opening.Wait()
	var begin struct{}
	if err := errors.Join(say.Encode(loadOpened{int(open.Load()), time.Since(began)}), hear.Decode(&begin)); err != nil {
		return err
	}

	// So many do something in a second.
	pause := time.Duration(n) * time.Second / 1000
	var all sync.WaitGroup
	for _, p := range people {
		all.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				case <-time.After(time.Duration(rand.ExpFloat64() * float64(pause))):
					p.act()
				}
			}
		})
	}
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		time.Sleep(min(lasts*2/3, 15*time.Second))
		l.disaster()
	}
	close(l.stop)
	all.Wait()
	for _, p := range people {
		p.leave()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Bytes = l.bytes.Load()
	if err := say.Encode(&l.result); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the proxy has gone
	return nil
}

// disaster kills the services, with what they were doing, and has them come back. Of raw connections most survive all but
// the second one.
func (l *crowdLoad) disaster() {
	l.mu.Lock()
	l.result.Kills++
	part := 0.1
	if l.result.Kills == 2 {
		part = 1
	}
	l.mu.Unlock()
	l.gone.Store(true)
	l.http.kill(1, true) // a message tells its own end
	l.tcp.kill(part, false)
	time.Sleep(200 * time.Millisecond)
	err := errors.Join(l.http.revive(), l.tcp.revive())
	l.lost.Store(time.Now().UnixNano())
	l.gone.Store(false)
	if err != nil {
		l.wrong("reviving: %v", err)
	}
}

// struck reports whether services were gone at some time since then, or had just come back.
func (l *crowdLoad) struck(since time.Time) bool {
	return l.gone.Load() || time.Unix(0, l.lost.Load()).After(since.Add(-grace))
}

// grace is how long after the end of a connection something may still be tried on it, on a machine that has much to do.
const grace = 3 * time.Second

func (l *crowdLoad) count(m map[string]int, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m[what]++
}

func (l *crowdLoad) wrong(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text := fmt.Sprintf(format, args...); len(l.result.Wrong) < 30 {
		l.result.Wrong = append(l.result.Wrong, text)
	}
}

// outcome counts how something ended that began then. excused is whether a fault was made.
func (l *crowdLoad) outcome(kind string, began time.Time, excused bool, err error) {
	var ne net.Error
	switch {
	case err == nil:
		l.count(l.result.Right, kind)
	case errors.Is(err, errOther):
		l.wrong("%s: %v", kind, err)
	case errors.As(err, &ne) && ne.Timeout() || errors.Is(err, context.DeadlineExceeded):
		l.wrong("%s: it hangs: %v", kind, err)
	case excused || l.struck(began):
		l.count(l.result.Failures, kind+": "+failure(err))
	default:
		l.wrong("%s: for no reason: %v", kind, err)
	}
}

// answered is the status of an answer, where it is not 200.
type answered int

func (s answered) Error() string { return strconv.Itoa(int(s)) }

// failure is the kind of a failure.
func failure(err error) string {
	if s := answered(0); errors.As(err, &s) {
		return s.Error()
	}
	text := err.Error()
	for _, known := range []string{"connection reset", "unexpected EOF", "broken pipe", "context canceled", "stream error", "protocol is shutdown", "connection loss", "closed"} {
		if strings.Contains(text, known) {
			return known
		}
	}
	if errors.Is(err, io.EOF) {
		return "EOF"
	}
	return text
}

// errOther is about bytes that are not those that were sent.
var errOther = errors.New("other bytes than were sent")

// same reads r to its end, or n bytes of it, and compares it with want.
func (l *crowdLoad) same(r, want io.Reader, sip func()) error {
	got, expected := make([]byte, 16<<10), make([]byte, 16<<10)
	for {
		n, err := r.Read(got)
		l.bytes.Add(int64(n))
		if k, _ := io.ReadFull(want, expected[:n]); k < n || !bytes.Equal(got[:n], expected[:n]) {
			return errOther
		}
		switch {
		case errors.Is(err, io.EOF):
			if k, _ := want.Read(expected); k > 0 {
				return fmt.Errorf("it ended as if whole: %w", errOther)
			}
			return nil
		case err != nil:
			return err
		}
		sip()
	}
}

// mortal is a service that can be killed, and revived at the same address.
type mortal struct {
	addr  string
	serve func(net.Listener) (stop func())

	mu    sync.Mutex
	stop  func()
	conns map[*mortalConn]struct{}
}

type mortalConn struct {
	*net.TCPConn
	of *mortal
}

func (c *mortalConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.TCPConn.Close()
}

type mortalListener struct {
	*net.TCPListener
	of *mortal
}

func (l mortalListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	m := &mortalConn{c, l.of}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	l.of.conns[m] = struct{}{}
	return m, nil
}

func newMortal(addr string, serve func(net.Listener) func()) (*mortal, error) {
	m := &mortal{addr: addr, serve: serve, conns: map[*mortalConn]struct{}{}}
	return m, m.revive()
}

func (m *mortal) revive() error {
	ln, err := net.Listen("tcp", m.addr)
	if err != nil {
		return err
	}
	m.addr = ln.Addr().String()
	m.stop = m.serve(mortalListener{ln.(*net.TCPListener), m})
	return nil
}

// kill stops the service and breaks off a part of its connections; gently, some of them as if properly.
func (m *mortal) kill(part float64, gently bool) {
	m.stop()
	m.mu.Lock()
	all := slices.Collect(maps.Keys(m.conns))
	m.mu.Unlock()
	for _, c := range all {
		if rand.Float64() < part {
			if !gently || rand.IntN(2) == 0 {
				_ = c.SetLinger(0)
			}
			_ = c.TCPConn.Close() // whoever serves it comes to the end of it
		}
	}
}

// serveHTTP serves what TestChaos asks for, and a few faults more.
func (l *crowdLoad) serveHTTP(ln net.Listener) (stop func()) {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: p, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := strconv.ParseUint(r.URL.Query().Get("id"), 10, 64)
		switch r.URL.Query().Get("fault") {
		case "reset": // in the middle of a body
			w.Header().Set("Content-Length", "100000")
			_, _ = io.CopyN(w, stream(id, 100_000), 50_000)
			_ = http.NewResponseController(w).Flush()
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil { // HTTP/2
				panic(http.ErrAbortHandler)
			}
			_ = c.(*mortalConn).SetLinger(0)
			_ = c.Close()
			return
		case "sip": // the service reads slowly
			r.Body = io.NopCloser(slowly{r.Body})
		}
		chaotic(w, r)
	})}
	go func() { _ = s.Serve(ln) }()
	return func() { _ = ln.Close() }
}

// slowly reads a little at a time.
type slowly struct{ io.Reader }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(2 * time.Millisecond)
	return s.Reader.Read(p[:min(len(p), 4<<10)])
}

// Commands of a raw connection: one byte, and then two numbers, how many bytes and of which stream.
const (
	cmdEcho  = 'e' // send them back as they come
	cmdSend  = 's' // send them
	cmdTake  = 't' // take them, and say whether they were right
	cmdEnd   = 'x' // send them, end this direction, and take the stream of the number's complement to its end
	cmdReset = 'r' // send a part of them, and break off
)

const cmdSize = 17

func command(kind byte, n int64, id uint64) []byte {
	b := append(make([]byte, 0, cmdSize), kind)
	b = binary.BigEndian.AppendUint64(b, uint64(n))
	return binary.BigEndian.AppendUint64(b, id)
}

func serveCommands(ln net.Listener) (stop func()) {
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); obey(c.(*mortalConn), r); {
				}
			}()
		}
	}()
	return func() { _ = ln.Close() }
}

// obey carries out one command, and reports whether more may come.
func obey(c *mortalConn, r *bufio.Reader) bool {
	var b [cmdSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return false
	}
	n, id := int64(binary.BigEndian.Uint64(b[1:])), binary.BigEndian.Uint64(b[9:])
	switch b[0] {
	case cmdEcho:
		_, err := io.CopyN(c, r, n)
		return err == nil
	case cmdSend:
		_, err := io.Copy(c, stream(id, n))
		return err == nil
	case cmdTake:
		got, want := make([]byte, n), make([]byte, n)
		_, err := io.ReadFull(r, got)
		_, _ = io.ReadFull(stream(id, n), want)
		verdict := []byte("n")
		if bytes.Equal(got, want) {
			verdict[0] = 'y'
		}
		if err == nil {
			_, err = c.Write(verdict)
		}
		return err == nil
	case cmdEnd:
		if _, err := io.Copy(c, stream(id, n)); err != nil || c.CloseWrite() != nil {
			return false
		}
		_, _ = io.Copy(io.Discard, r)
	case cmdReset:
		_, _ = io.CopyN(c, stream(id, n), n/2)
		_ = c.SetLinger(0)
	}
	return false
}

// person is a client with a connection.
type person interface {
	arrive() error // opens it
	act()          // does something on it, and opens another one when it has ended
	leave()
}

// dialer2 connects from one of many addresses of this machine, of which each has ports of its own.
type dialer2 struct {
	from int
	load *crowdLoad
}

func (d dialer2) dial(ctx context.Context, to string, protos ...string) (*tls.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+d.from%100))}}
	raw, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	c := tls.Client(loop.NewWire(raw), &tls.Config{
		InsecureSkipVerify: true, NextProtos: protos, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
	})
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// vanish ends a connection without a word of TLS.
func vanish(c *tls.Conn) {
	raw := c.NetConn().(*loop.Wire).Conn.(*net.TCPConn)
	_ = raw.SetLinger(rand.IntN(2) - 1)
	_ = raw.Close()
}

// careful takes no end for one that the peer has not told of. Where a write has taken the reset of the connection, the kernel
// says nothing else than that it has ended, and crypto/tls believes it.
type careful struct{ *tls.Conn }

func (c careful) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) && c.NetConn().(*loop.Wire).Truncated() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// size is how much somebody sends: mostly little.
func size() int64 {
	switch n := rand.IntN(100); {
	case n < 2:
		return 700_000
	case n < 12:
		return 70_000 + rand.Int64N(1000)
	case n < 20:
		return 0
	default:
		return rand.Int64N(4000)
	}
}

const tooLong = 90 * time.Second

// webPerson speaks HTTP.
type webPerson struct {
	load  *crowdLoad
	proto string
	http  *http.Client
	broke atomic.Int64 // when it last broke its connection off
	mu    sync.Mutex
	conn  *tls.Conn // the one in use
}

func newWebPerson(l *crowdLoad, d dialer2, proto string) *webPerson {
	p := &webPerson{load: l, proto: proto}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(proto == "http/1.1")
	protocols.SetUnencryptedHTTP2(proto == "h2")
	p.http = &http.Client{Transport: &http.Transport{
		Protocols: protocols, DisableCompression: true, MaxConnsPerHost: 1, WriteBufferSize: 2 << 10, ReadBufferSize: 2 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := d.dial(ctx, l.webAt, proto)
			if err != nil {
				return nil, err
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.conn = c
			return struct{ net.Conn }{c}, nil // plain, for all that net/http can see
		},
	}}
	return p
}

func (p *webPerson) leave() { p.http.CloseIdleConnections() }

func (p *webPerson) arrive() error { return p.ask(0, 100, "", "") }

func (p *webPerson) act() {
	if p.proto == "h2" && rand.IntN(4) == 0 { // several at once
		var all sync.WaitGroup
		for range 4 {
			all.Go(p.once)
		}
		all.Wait()
		return
	}
	p.once()
}

// once asks for something, and now and then something goes wrong with it.
func (p *webPerson) once() {
	service := []string{"", "", "", "", "", "", "", "", "head", "body", "answer", "stall", "early", "close", "reset", "sip"}
	own := []string{"", "", "", "", "", "", "", "", "", "", "vanishes", "cancels", "ends", "slow reader", "slow writer"}
	fault, mine := service[rand.IntN(len(service))], own[rand.IntN(len(own))]
	for _, f := range []string{fault, mine} {
		if f != "" {
			p.load.count(p.load.result.Faults, f)
		}
	}
	harmless := (fault == "" || fault == "stall" || fault == "close" || fault == "sip") && (mine == "" || strings.HasPrefix(mine, "slow "))
	began := time.Now()
	err := p.ask(size(), size(), fault, mine)
	if mine == "ends" || mine == "vanishes" {
		p.http.CloseIdleConnections()
	}
	// What ends the connection ends all that is under way on it, or about to be.
	alone := time.Unix(0, p.broke.Load()).Before(began.Add(-grace))
	p.load.outcome(p.proto, began, !harmless || !alone, err)
}

func (p *webPerson) ask(up, more int64, fault, mine string) error {
	id := p.load.ids.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), tooLong)
	defer cancel()
	stop := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch mine {
		case "vanishes":
			p.broke.Store(time.Now().UnixNano())
			vanish(p.conn)
		case "ends":
			p.broke.Store(time.Now().UnixNano())
			_ = p.conn.CloseWrite()
		case "cancels":
			cancel()
		}
	}
	if mine == "vanishes" || mine == "ends" || mine == "cancels" {
		timer := time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, stop)
		defer timer.Stop()
	}
	method, body := http.MethodGet, io.Reader(nil)
	if up > 0 {
		method, body = http.MethodPost, stream(^id, up)
		if mine == "slow writer" {
			body = slowly{body}
		}
		if rand.IntN(2) == 0 {
			body = io.MultiReader(body) // of unknown length
		}
	}
	var on httptrace.GotConnInfo
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { on = i }})
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://x/?id=%d&more=%d&fault=%s", id, more, fault), body)
	if err != nil {
		return err
	}
	res, err := p.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w (connection used before: %t, idle: %v)", err, on.Reused, on.IdleTime.Round(time.Millisecond))
	}
	defer res.Body.Close()
	if said := res.Header.Get("X-Id"); said != "" && said != strconv.FormatUint(id, 10) {
		return fmt.Errorf("request %d was answered for %s: %w", id, said, errOther)
	}
	if res.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, res.Body)
		return answered(res.StatusCode)
	}
	sip := func() {}
	if mine == "slow reader" {
		sip = func() { time.Sleep(time.Millisecond) }
	}
	if fault == "reset" {
		if err := p.load.same(res.Body, stream(id, 50_000), sip); err != nil {
			return err
		}
		return fmt.Errorf("half of a body is whole: %w", errOther)
	}
	return p.load.same(res.Body, io.MultiReader(stream(^id, up), stream(id, more)), sip)
}

// tcpPerson speaks something else.
type tcpPerson struct {
	load   *crowdLoad
	dialer dialer2
	conn   *tls.Conn
	fine   time.Time // when it last was
}

func (p *tcpPerson) arrive() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), tooLong)
	defer cancel()
	if p.conn, err = p.dialer.dial(ctx, p.load.raw); err != nil {
		return err
	}
	p.fine = time.Now()
	return p.do(cmdEcho, 100, func() {})
}

func (p *tcpPerson) leave() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

func (p *tcpPerson) act() {
	began := time.Now()
	if p.conn == nil {
		if err := p.arrive(); err != nil {
			p.drop()
			p.load.outcome("tcp", began, false, err)
			return
		}
	}
	kinds := []byte{cmdEcho, cmdEcho, cmdEcho, cmdSend, cmdSend, cmdTake, cmdTake, cmdEcho, cmdSend, cmdTake, cmdEnd, cmdReset}
	kind := kinds[rand.IntN(len(kinds))]
	mine := []string{"", "", "", "", "", "", "", "", "", "slow reader", "vanishes", "ends"}[rand.IntN(12)]
	for _, f := range []string{map[byte]string{cmdEnd: "service ends", cmdReset: "reset"}[kind], mine} {
		if f != "" {
			p.load.count(p.load.result.Faults, f)
		}
	}
	conn, sip := p.conn, func() {}
	switch mine {
	case "slow reader":
		sip = func() { time.Sleep(time.Millisecond) }
	case "vanishes":
		timer := time.AfterFunc(time.Duration(rand.IntN(10_000))*time.Microsecond, func() { vanish(conn) })
		defer timer.Stop()
	case "ends":
		if kind != cmdReset {
			kind = 0
		}
	}
	if p.fine.Before(began) {
		began = p.fine // what has happened since then may come to light now
	}
	err := p.do(kind, size(), sip)
	p.fine = time.Now()
	if err != nil || kind == 0 || kind == cmdEnd || mine == "vanishes" {
		p.drop()
	}
	p.load.outcome("tcp", began, kind == cmdReset || mine == "vanishes", err)
}

func (p *tcpPerson) drop() {
	if p.conn != nil {
		_ = p.conn.NetConn().Close()
	}
	p.conn = nil
}

// do has the service obey a command, or ends this direction before the answer has come.
func (p *tcpPerson) do(kind byte, n int64, sip func()) error {
	id := p.load.ids.Add(1)
	_ = p.conn.SetDeadline(time.Now().Add(tooLong))
	ends := kind == 0
	if ends {
		kind = cmdEcho
	}
	if _, err := p.conn.Write(command(kind, n, id)); err != nil {
		return err
	}
	all := careful{p.conn}
	answer := io.LimitReader(all, n)
	switch kind {
	case cmdEcho:
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(p.conn, stream(id, n))
			if err == nil && ends {
				err = p.conn.CloseWrite()
			}
			sent <- err
		}()
		if ends {
			answer = all // to its end
		}
		return errors.Join(p.load.same(answer, stream(id, n), sip), <-sent)
	case cmdTake:
		if _, err := io.Copy(p.conn, stream(id, n)); err != nil {
			return err
		}
		verdict := make([]byte, 1)
		if _, err := io.ReadFull(all, verdict); err != nil {
			return err
		}
		if p.load.bytes.Add(n); verdict[0] != 'y' {
			return errOther
		}
		return nil
	case cmdEnd:
		if err := p.load.same(all, stream(id, n), sip); err != nil { // which ends
			return err
		}
		_, err := io.Copy(p.conn, stream(^id, 1000)) // and this direction goes on
		return errors.Join(err, p.conn.CloseWrite())
	case cmdReset:
		err := p.load.same(all, stream(id, n), sip)
		if err == nil {
			return fmt.Errorf("what was broken off is whole: %w", errOther)
		}
		return err
	default:
		return p.load.same(answer, stream(id, n), sip)
	}
}
