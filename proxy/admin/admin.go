// Package admin is the administration API of a proxy, under the names that Envoy's has.
//
// It is for whoever may log in to the machine, and for nobody else: it listens on loopback or on a unix socket of mode 0600.
// Loopback is within reach of every web page that a browser on the machine shows, so a request whose Host is not this server's
// (DNS rebinding), or that a page of another origin made, is refused with 403, whatever it asks for.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/jurat-tls/jurat/attest"
)

// Source is what is shown, and what can be done. An endpoint whose function is nil is not there (404). The functions are called
// by any number of goroutines.
type Source struct {
	State      func() State // without it the proxy is never ready
	ServerInfo func() ServerInfo
	Listeners  func() []Listener
	Clusters   func() []Cluster
	Certs      func() []Certificate
	// ConfigDump answers what runs in words of our own, of which JSON is made. It has no secrets; what looks like one is not shown.
	ConfigDump func() (any, error)
	// Configs answers what a control plane has brought, as the configs of an envoy.admin.v3.ConfigDump: messages in JSON, with their
	// "@type". Nothing in them is hidden here. May be nil.
	Configs func(endpoints bool) ([]json.RawMessage, error)
	Stats   func(emit func(name string, value float64))
	Metrics http.Handler // of /stats/prometheus

	LogLevel    func() slog.Level
	SetLogLevel func(slog.Level)
	ReopenLogs  func(context.Context) error
	// Drain begins to end connections, and does not wait for that.
	Drain func(Drain) error
	Quit  func() // begins to end the process, and does not wait for that

	// Services are those of gRPC, by name ("package.Service"), for clients that begin with HTTP/2 (no browser does in plain). They only show
	// something. A stream ends after ten minutes, whatever goes on on it.
	Services map[string]http.Handler
}

// State of a proxy.
type State string

// The states. Only Live is ready.
const (
	PreInitializing State = "PRE_INITIALIZING"
	Initializing    State = "INITIALIZING"
	Live            State = "LIVE"
	Draining        State = "DRAINING"
)

// Drain says how connections end.
type Drain struct {
	Graceful    bool // what is under way gets its time
	InboundOnly bool // listeners that take connections from outside
	SkipExit    bool // the process stays when all have ended
}

// Options of a Server.
type Options struct {
	// Names are further hosts that requests may be for: "host" with the port of the listener, or "host:port".
	Names []string
	// Profiling serves /debug/pprof/: whoever reads that sees memory addresses and stacks, and makes the proxy slower.
	Profiling bool
	// UnsafeAnyAddress lets it listen where others can reach it.
	UnsafeAnyAddress bool
	Log              *slog.Logger
	Now              func() time.Time // nil for time.Now
}

const (
	maxHeader      = 16 << 10
	maxConnections = 64
	maxStreams     = 16 // of a connection with HTTP/2
)

// Server serves one listener. New makes one.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// New makes a Server for ln, which Listen has opened or somebody else. The error is an *attest.Error with CodeConfigValue, where
// others could reach ln; it stays open then.
func New(ln net.Listener, source Source, opts Options) (*Server, error) {
	if err := checkListener(ln, opts); err != nil {
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	var protocols *http.Protocols
	if len(source.Services) > 0 {
		protocols = new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(true)
	}
	return &Server{ln, &http.Server{
		Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 256 << 10},
		Handler:           guard(ln.Addr(), opts, contain(opts.Log, newAPI(source, opts))),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: writeTimeout, IdleTimeout: time.Minute,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(opts.Log.Handler(), slog.LevelDebug),
	}}, nil
}

const writeTimeout = 30 * time.Second

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until Shutdown; it then returns nil. It closes the listener.
func (s *Server) Serve() error {
	if err := s.http.Serve(netutil.LimitListener(s.listener, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
		return &attest.Error{Code: attest.CodeListen, Check: "admin", Subject: s.listener.Addr().String(), Err: err}
	}
	return nil
}

// Shutdown lets requests finish until ctx ends, and cuts off what is left then: it answers ctx's error in that case.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	_ = s.listener.Close() // Serve may never have been called
	return err
}

// contain keeps what a function of the Source does wrong from being a connection that breaks off without a word.
func contain(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic in the admin API", "code", string(attest.CodeInternal), "path", r.URL.Path)
				fail(w, http.StatusInternalServerError, attest.CodeInternal.Title()+" ("+string(attest.CodeInternal)+")")
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func fail(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte("jurat: " + text + "\n"))
}
