//go:build !noxds

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/ratls"
)

// fleet is another process of TestFleetEmergency: proxies, their clients, and the service behind them.
func fleet() {
	say, hear := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	if err := runFleet(say, hear); err != nil && !errors.Is(err, io.EOF) {
		_ = say.Encode(fleetWord{Failed: err.Error()})
		os.Exit(1)
	}
}

func runFleet(say *json.Encoder, hear *json.Decoder) error {
	var spec fleetSpec
	if err := hear.Decode(&spec); err != nil {
		return err
	}
	service, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := service.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 2*pieceSize) // not io.Copy, whose pipes are descriptors too
				for {
					n, err := c.Read(buf)
					if err == nil {
						_, err = c.Write(buf[:n])
					}
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	var order fleetOrder
	if err := errors.Join(say.Encode(fleetWord{Backend: service.Addr().String()}), hear.Decode(&order)); err != nil {
		return err
	}
	addresses, err := serveFleet(&spec, order.Control)
	if err != nil {
		return err
	}
	if err := errors.Join(say.Encode(fleetWord{Up: len(addresses)}), hear.Decode(&order)); err != nil {
		return err
	}
	all, err := visitFleet(&spec, addresses)
	if err != nil {
		return err
	}
	go pump(&spec, all)
	if err := moved(all, func(*visitor) bool { return true }); err != nil {
		return err
	}
	err = say.Encode(fleetWord{Open: len(all)})
	for err == nil {
		used := fleetCPU()
		if err = hear.Decode(&order); err == nil {
			err = say.Encode(fleetWord{Round: roundOf(&spec, all, order.Denied, used)})
		}
	}
	return err
}

// serveFleet runs proxies, and answers where each listens.
func serveFleet(spec *fleetSpec, server string) ([]string, error) {
	addresses := make([]string, spec.To-spec.From)
	failed := make(chan error, len(addresses))
	turns := make(chan struct{}, 4)
	for i := range addresses {
		name := fmt.Sprintf("p%d.fleet.example", spec.From+i)
		dir := filepath.Join(spec.Dir, "proxies", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		policy, err := os.ReadFile(filepath.Join(spec.Dir, "policy.yaml"))
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "jurat.yaml")
		text := fmt.Sprintf(`
identity: {tee: "sim:snp:genoa,dir=%s", names: [%s]}
xds:
  server: %q
  require: floor.yaml
  node: {id: %s}
  state: kept
  limits:
    floor: floor.yaml
    binding: key
    policies: [mesh]
    targets: [{name: app, to: [loopback], plain: true}]
    listeners: [{address: "127.0.0.1:15006", to: [app]}]
`, spec.Sim, name, server, name)
		if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.WriteFile(filepath.Join(dir, "floor.yaml"), policy, 0o600)); err != nil {
			return nil, err
		}
		turns <- struct{}{}
		up := make(chan string, 1)
		log := &lastWordsOf{}
		a := &app{
			stdin: strings.NewReader(""), stdout: io.Discard, stderr: log, getenv: os.Getenv, now: func() time.Time { return time.Now().UTC().Round(0) }, crowded: true,
			listen: func(string) (net.Listener, error) {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err == nil {
					up <- ln.Addr().String()
				}
				return ln, err
			},
		}
		go func() {
			code := a.run(context.Background(), []string{"serve", "-c", file, "--offline", "--log", "json"})
			failed <- fmt.Errorf("%s ended with %d: %s", name, code, log)
		}()
		go func() {
			defer func() { <-turns }()
			select {
			case addresses[i] = <-up:
			case <-time.After(2 * time.Minute):
				failed <- fmt.Errorf("%s does not listen: %s", name, log)
			}
		}()
	}
	for range cap(turns) {
		turns <- struct{}{}
	}
	select {
	case err := <-failed:
		return nil, err
	default:
		return addresses, nil
	}
}

// lastWordsOf keeps the end of a log.
type lastWordsOf struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lastWordsOf) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 8<<10 {
		l.buf.Next(l.buf.Len() / 2)
	}
	return l.buf.Write(p)
}

func (l *lastWordsOf) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// pieceSize is the size of a piece of a stream: a number, noise, and their checksum.
const pieceSize = 512

// visitor is a client of a proxy, with a stream of bytes that come back as they were sent.
type visitor struct {
	proxy      int
	generation string
	conn       *ratls.Conn
	sent       uint64        // of the pump
	cut        atomic.Bool   // the pump has met with an error
	back       atomic.Uint64 // pieces that came back right
	ended      chan struct{}
	at         time.Time
	err        error
}

func visitFleet(spec *fleetSpec, addresses []string) ([]*visitor, error) {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv, now: time.Now}
	require, err := a.loadPolicy(filepath.Join(spec.Dir, "policy.yaml"))
	if err != nil {
		return nil, err
	}
	endorser := new(endorsers)
	rp := (&relying{policy: require, endorser: endorser, now: a.now}).party(endorser)
	connectors := make([][]*ratls.Connector, len(fleetPeers))
	for i, g := range fleetPeers {
		tee, err := openTEE("sim:"+g+",dir="+spec.Sim, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		for k := range 4 { // in both tiers
			id, err := ratls.NewIdentity(context.Background(), tee, nil, [32]byte{2}, ratls.IdentityOptions{})
			if err != nil {
				return nil, err
			}
			c := ratls.NewMutualConnector(id, rp)
			if k%2 == 0 {
				c = c.CertificateOnly()
			}
			connectors[i] = append(connectors[i], c)
		}
	}
	all := make([]*visitor, 0, len(addresses)*spec.Open)
	errs := make([]error, len(addresses)*spec.Open)
	var opening sync.WaitGroup
	turns := make(chan struct{}, 16)
	for k := range spec.Open { // one after the other at each proxy, but for chance
		for i, address := range addresses {
			at := len(all)
			v := &visitor{proxy: i, generation: fleetPeers[k%len(fleetPeers)], ended: make(chan struct{})}
			all = append(all, v)
			turns <- struct{}{}
			opening.Go(func() {
				defer func() { <-turns }()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
				if err == nil {
					v.conn, err = connectors[k%len(fleetPeers)][k/len(fleetPeers)%4].Handshake(ctx, raw, fmt.Sprintf("p%d.fleet.example", spec.From+i))
				}
				if errs[at] = err; err == nil {
					go v.read()
				}
			})
		}
	}
	opening.Wait()
	return all, errors.Join(errs...)
}

// piece is one of a stream.
func piece(n uint64) []byte {
	b := make([]byte, pieceSize)
	binary.BigEndian.PutUint64(b, n)
	r := rand.New(rand.NewPCG(n, 1))
	for i := 8; i < pieceSize-4; i += 4 {
		binary.BigEndian.PutUint32(b[i:], r.Uint32())
	}
	binary.BigEndian.PutUint32(b[pieceSize-4:], crc32.ChecksumIEEE(b[:pieceSize-4]))
	return b
}

func (v *visitor) read() {
	b := make([]byte, pieceSize)
	for {
		_, err := io.ReadFull(v.conn, b)
		n := v.back.Load()
		if err == nil && (binary.BigEndian.Uint64(b) != n || crc32.ChecksumIEEE(b[:pieceSize-4]) != binary.BigEndian.Uint32(b[pieceSize-4:])) {
			err = fmt.Errorf("piece %d is another", n)
		}
		if err != nil {
			v.at, v.err = time.Now(), err
			close(v.ended)
			_ = v.conn.Close()
			return
		}
		v.back.Add(1)
	}
}

func (v *visitor) gone() bool {
	select {
	case <-v.ended:
		return true
	default:
		return false
	}
}

// pump sends a piece of one stream after the other.
func pump(spec *fleetSpec, all []*visitor) {
	next := time.Now()
	for {
		for _, v := range all {
			if v.gone() {
				continue
			}
			if _, err := v.conn.Write(piece(v.sent)); err != nil {
				v.cut.Store(true) // by a reset, of which the reader is told no more
			}
			v.sent++
			next = next.Add(spec.Pace)
			if wait := time.Until(next); wait > 0 {
				time.Sleep(wait)
			} else if wait < -time.Second {
				next = time.Now()
			}
		}
	}
}

// moved waits until every stream has moved on.
func moved(all []*visitor, which func(*visitor) bool) error {
	before := make([]uint64, len(all))
	for i, v := range all {
		before[i] = v.back.Load()
	}
	limit := time.Now().Add(2 * time.Minute)
	for i, v := range all {
		for which(v) && v.back.Load() == before[i] {
			if v.gone() {
				return fmt.Errorf("a stream of %s at proxy %d ended: %w", v.generation, v.proxy, v.err)
			}
			if time.Now().After(limit) {
				return fmt.Errorf("a stream of %s at proxy %d has stopped", v.generation, v.proxy)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// roundOf waits for the end of the connections of a generation, and looks whether all others go on. used is how much time of the
// processors the process has had before.
func roundOf(spec *fleetSpec, all []*visitor, denied string, used time.Duration) *fleetRound {
	r := &fleetRound{Last: make([]int64, spec.To-spec.From)}
	stays := func(v *visitor) bool {
		return v.generation != denied && (!v.gone() || !wasDenied(v.generation, denied))
	}
	limit := time.After(time.Minute)
	for _, v := range all {
		if v.generation != denied {
			continue
		}
		r.Denied++
		select {
		case <-v.ended:
			r.Ended++
			r.Last[v.proxy] = max(r.Last[v.proxy], v.at.UnixNano())
			if v.err == io.EOF && !v.cut.Load() && len(r.Wrong) < 10 {
				r.Wrong = append(r.Wrong, fmt.Sprintf("a stream at proxy %d has come to a proper end", v.proxy))
			}
		case <-limit:
		}
	}
	r.Used = fleetCPU() - used
	if err := moved(all, stays); err != nil {
		r.Wrong = append(r.Wrong, err.Error())
	}
	for _, v := range all {
		if !stays(v) {
			continue
		}
		r.Others++
		r.Bytes += int64(v.back.Load() * pieceSize)
		if !v.gone() {
			r.Good++
		}
	}
	return r
}

// wasDenied reports whether a generation was denied before another one.
func wasDenied(generation, now string) bool {
	for _, g := range fleetPeers {
		if g == now {
			return false
		}
		if g == generation {
			return true
		}
	}
	return false
}
