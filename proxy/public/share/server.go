package share

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

const (
	maxConnections = 256 // open at once, with those whose handshake is under way
	maxHandshakes  = 64  // under way at once
	maxOfOne       = 8   // of them from one origin
	handshakeTime  = 10 * time.Second
	requestTime    = 15 * time.Second // to read one, and to write its answer
	idleTime       = 3 * time.Minute  // more than a client keeps a connection for
)

// Handshake makes raw a connection to a replica that is let in, or closes it and answers an error. It ends when ctx does.
type Handshake func(ctx context.Context, raw net.Conn) (Conn, error)

// Server serves a storage to replicas. NewServer makes one, Serve serves, Close ends it.
type Server struct {
	values    Values
	handshake Handshake
	log       *slog.Logger
	http      *http.Server
	leases    *leases
	living    context.Context
	end       context.CancelFunc
	work      sync.WaitGroup
	walking   sync.Mutex // what is measured is to be what is added to, and all that there is takes its room in memory once

	connections, handshakes chan struct{}
	origin                  func(net.Addr) string
	mu                      sync.Mutex
	origins                 map[string]int // of handshakes
}

// NewServer makes a server of values for whom handshake lets in. origin says whom a connection counts for until then, such as ratls.Origin:
// a stranger at one address is not to keep replicas waiting.
func NewServer(values Values, handshake Handshake, origin func(net.Addr) string, log *slog.Logger) *Server {
	s := &Server{
		values: values, handshake: handshake, origin: origin, origins: map[string]int{}, log: log, leases: newLeases(values),
		connections: make(chan struct{}, maxConnections), handshakes: make(chan struct{}, maxHandshakes),
	}
	s.living, s.end = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: 8 << 10, ErrorLog: quiet(),
	}
	return s
}

// quiet takes what net/http would tell everybody of.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// Serve serves the connections of ln from now on, until Close, which closes it. Where somebody else closes it those that are open go on.
func (s *Server) Serve(ln net.Listener) {
	in := &entrance{address: ln.Addr(), conns: make(chan net.Conn), closed: s.living.Done()}
	s.work.Go(func() { _ = s.http.Serve(in) })
	s.work.Go(func() { s.accept(ln, in) })
}

func (s *Server) accept(ln net.Listener, in *entrance) {
	defer context.AfterFunc(s.living, func() { _ = ln.Close() })()
	defer ln.Close()
	for {
		raw, err := ln.Accept()
		switch {
		case s.living.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				_ = raw.Close()
			}
			return
		case err != nil: // such as for want of file descriptors
			s.log.Error("no connection of a replica is accepted", "code", string(attest.CodeListen), "error", err.Error())
			select {
			case <-s.living.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		if !enter(s.connections) {
			_ = raw.Close()
			continue
		}
		leave, ok := s.begin(raw)
		if !ok {
			<-s.connections
			_ = raw.Close()
			continue
		}
		s.work.Go(func() {
			conn, err := s.admit(raw)
			leave()
			if err == nil {
				err = in.take(conn)
			}
			if err != nil {
				<-s.connections
				_ = raw.Close()
			}
		})
	}
}

// begin reports whether there is room for a handshake, until leave is called.
func (s *Server) begin(raw net.Conn) (leave func(), ok bool) {
	from := s.origin(raw.RemoteAddr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.origins[from] >= maxOfOne || !enter(s.handshakes) {
		return nil, false
	}
	s.origins[from]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.origins[from]--; s.origins[from] == 0 {
			delete(s.origins, from)
		}
		<-s.handshakes
	}, true
}

// enter reports whether there is room.
func enter(room chan struct{}) bool {
	select {
	case room <- struct{}{}:
		return true
	default:
		return false
	}
}

// admit makes the handshake.
func (s *Server) admit(raw net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.living, handshakeTime)
	defer cancel()
	conn, err := s.handshake(ctx, raw)
	if err == nil {
		if err = affirmed(conn); err != nil {
			_ = conn.Close()
		}
	}
	if err != nil {
		s.log.Warn("no replica", "remote", raw.RemoteAddr().String(), "code", string(attest.CodeOf(err)), "error", err.Error())
		return nil, err
	}
	s.log.Info("replica affirmed", "remote", raw.RemoteAddr().String(), "evidence", conn.Result().EvidenceDigest())
	return &counted{Conn: guarded{conn}, raw: raw, leave: sync.OnceFunc(func() { <-s.connections })}, nil
}

// counted is a connection that counts as long as it is open.
type counted struct {
	net.Conn
	raw   net.Conn
	leave func()
}

func (c *counted) Close() error {
	defer c.leave()
	err := c.Conn.Close()
	_ = c.raw.Close() // whatever the one above it does
	return err
}

// entrance is a net.Listener of connections whose handshake is over.
type entrance struct {
	address net.Addr
	conns   chan net.Conn
	closed  <-chan struct{}
}

func (e *entrance) take(conn net.Conn) error {
	select {
	case e.conns <- conn:
		return nil
	case <-e.closed:
		return net.ErrClosed
	}
}

func (e *entrance) Accept() (net.Conn, error) {
	select {
	case conn := <-e.conns:
		return conn, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

func (e *entrance) Addr() net.Addr { return e.address }
func (e *entrance) Close() error   { return nil }

// Close ends all connections, and gives back all locks.
func (s *Server) Close() {
	s.end()
	_ = s.http.Close()
	s.work.Wait()
	_ = s.http.Close() // what came in meanwhile
	s.leases.close()
}

// request is one operation that a replica asks for.
type request struct {
	ctx   context.Context
	key   string
	query url.Values
	body  []byte
}

// handler serves operations. Those that there are not are no 404, which says that a key does not exist.
func (s *Server) handler() http.Handler {
	operations := map[string]func(*request) ([]byte, error){
		"/load":   func(r *request) ([]byte, error) { return s.values.Load(r.ctx, r.key) },
		"/store":  func(r *request) ([]byte, error) { return nil, s.store(r.ctx, r.key, r.body) },
		"/delete": func(r *request) ([]byte, error) { return nil, s.values.Delete(r.ctx, r.key) },
		"/list":   s.list,
		"/info": func(r *request) ([]byte, error) {
			info, err := s.values.Info(r.ctx, r.key)
			if err != nil {
				return nil, err
			}
			return json.Marshal(info)
		},
		"/lock": func(r *request) ([]byte, error) { return nil, s.lock(r) },
		"/unlock": func(r *request) ([]byte, error) {
			s.leases.unlock(r.key, r.query.Get("token"))
			return nil, nil
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer []byte
		err := error(errInvalid)
		if operate := operations[r.URL.Path]; operate != nil {
			var in *request
			if in, err = read(r); err == nil {
				answer, err = operate(in)
			}
		}
		if err == nil {
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(answer)
			return
		}
		status := statusOf(err)
		if status == http.StatusInternalServerError && r.Context().Err() == nil || status == http.StatusInsufficientStorage {
			s.log.Error("a replica is not served", "remote", r.RemoteAddr, "operation", r.URL.Path, "code", string(attest.CodeOf(err)), "error", err.Error())
		}
		w.WriteHeader(status)
	})
}

// read reads what a replica asks for.
func read(r *http.Request) (*request, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	key := query.Get("key")
	check := checkKey
	if r.URL.Path == "/list" {
		check = checkPrefix
	}
	if r.Method != http.MethodPost || err != nil || check(key) != nil {
		return nil, errInvalid
	}
	body, err := readBounded(r.Body, maxValue)
	return &request{r.Context(), key, query, body}, err
}

func (s *Server) lock(r *request) error {
	token := r.query.Get("token")
	if token == "" || len(token) > maxToken {
		return errInvalid
	}
	return s.leases.lock(r.ctx, r.key, token)
}

func (s *Server) list(r *request) ([]byte, error) {
	s.walking.Lock()
	defer s.walking.Unlock()
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	keys, err := s.values.List(r.ctx, r.key, r.query.Get("recursive") == "true")
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(keys)
	if len(raw) > maxList {
		return nil, fmt.Errorf("%w: a list of %d bytes", errMany, len(raw))
	}
	return raw, err
}

// store adds a value, as long as there is room. Directories take room too: they stay when what was in them is deleted.
func (s *Server) store(ctx context.Context, key string, value []byte) error {
	s.walking.Lock()
	defer s.walking.Unlock()
	keys, err := s.values.List(ctx, "", true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	count, total := 1, int64(len(value))
	for _, k := range keys {
		if k == key {
			continue
		}
		count++
		if info, err := s.values.Info(ctx, k); err == nil && info.Terminal {
			total += info.Size
		}
	}
	if count > maxValues || total > maxTotal {
		return fmt.Errorf("%w: %d values and directories with %d bytes", errMany, count, total)
	}
	if err := ctx.Err(); err != nil { // who was refused while others had the turn adds nothing
		return err
	}
	return s.values.Store(ctx, key, value)
}
