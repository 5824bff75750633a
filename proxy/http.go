package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jurat-tls/jurat/proxy/message"
)

// httpSide is the HTTP half of an inbound server: attested connections go in, requests come out at the service.
type httpSide struct {
	stats   *counters
	log     *slog.Logger
	proxy   *httputil.ReverseProxy
	service *service
	h1      *front
	h2      *front
	any     *front

	backend Backend
	limits  Limits
	workers []*worker
	next    atomic.Uint32
	closing atomic.Bool
	ctx     context.Context // of connecting to the service
	cancel  context.CancelFunc
	work    sync.WaitGroup
}

// front is an http.Server that is fed with established connections.
type front struct {
	server *http.Server
	feed   *feed
	start  sync.Once
}

func newHTTPSide(engine *Engine, backend Backend, limits Limits, stats *counters, logger *slog.Logger) *httpSide {
	h := &httpSide{stats: stats, log: logger, service: newService(backend, limits, logger), backend: backend, limits: limits}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for _, l := range engine.group.Loops() {
		h.workers = append(h.workers, &worker{side: h, loop: l, clients: make(map[interface{ retire() }]struct{})})
	}
	quiet := slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
	h.proxy = &httputil.ReverseProxy{
		// Rewrite, never Director: with Director a client's "Connection: Jurat-Result" would remove ours.
		Rewrite:        h.rewrite,
		Transport:      h.service,
		FlushInterval:  -1,
		BufferPool:     new(buffers),
		ModifyResponse: h.modifyResponse,
		ErrorHandler:   h.fail,
		ErrorLog:       quiet,
	}
	front := func(http1, http2 bool) *front {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(http1)
		protocols.SetUnencryptedHTTP2(http2) // TLS is below us
		return &front{feed: newFeed(), server: &http.Server{
			Handler:                      h,
			Protocols:                    protocols,
			HTTP2:                        inboundHTTP2(),
			ReadHeaderTimeout:            limits.Header,
			IdleTimeout:                  limits.KeepAlive,
			MaxHeaderBytes:               maxHeader,
			DisableGeneralOptionsHandler: true, // "OPTIONS *" is for the service
			ErrorLog:                     quiet,
			ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				return context.WithValue(ctx, linkKey{}, c)
			},
		}}
	}
	h.h1, h.h2, h.any = front(true, false), front(false, true), front(true, true)
	return h
}

type linkKey struct{}

// take hands an established connection to the server for what was negotiated. Where nothing was, the client's first
// bytes tell.
func (h *httpSide) take(l *link, logger *slog.Logger) {
	if l.state.NegotiatedProtocol != "h2" && h.backend.scheme != "h2c" {
		w := h.workers[int(h.next.Add(1))%len(h.workers)]
		w.loop.Prepare(l.conn.NetConn())
		if !w.loop.Do(func() { w.take(l, logger) }) {
			l.reset()
		}
		return
	}
	f := h.any
	switch l.state.NegotiatedProtocol {
	case "h2":
		f = h.h2
	case "http/1.1":
		f = h.h1
	}
	f.start.Do(func() { go func() { _ = f.server.Serve(f.feed) }() })
	f.feed.put(l)
}

func (h *httpSide) drain(ctx context.Context) {
	h.closing.Store(true)
	for _, w := range h.workers {
		w.loop.Do(w.retire)
	}
	var all sync.WaitGroup
	for _, f := range []*front{h.h1, h.h2, h.any} {
		all.Go(func() {
			_ = f.feed.Close()
			_ = f.server.Shutdown(ctx)
		})
	}
	all.Wait()
}

func (h *httpSide) release() {
	for _, f := range []*front{h.h1, h.h2, h.any} {
		_ = f.server.Close()
	}
	h.service.close()
	h.cancel()
	h.work.Wait()
}

// ServeHTTP takes one request to the service.
func (h *httpSide) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.stats.requests.Add(1)
	l, ok := r.Context().Value(linkKey{}).(*link)
	switch {
	case !ok:
		http.Error(w, "jurat: not an attested connection", http.StatusInternalServerError)
		return
	case r.Method == http.MethodConnect:
		http.Error(w, "jurat: no tunnels through this proxy", http.StatusMethodNotAllowed)
		return
	case r.Method == "PRI", r.URL.Opaque != "", !fitsHTTP1(r):
		// The first is HTTP/2 where HTTP/1.1 was negotiated, the second no path on this service; none may be passed on.
		w.Header().Set("Connection", "close")
		http.Error(w, "jurat: bad request", http.StatusBadRequest)
		return
	}
	r.TLS = &l.state
	if !webSocket(r) {
		// After an upgrade the client talks to the service past this proxy. One to HTTP/2 would be a way to send any header.
		r.Header.Del("Upgrade")
	}
	// Without it net/http swallows what is left of the request once the answer begins, and a service that answers while it
	// still reads gets a request with a hole.
	_ = http.NewResponseController(w).EnableFullDuplex()
	h.proxy.ServeHTTP(w, r)
}

// fitsHTTP1 reports whether the first lines of r can be written in HTTP/1.1. net/http sees to that where they came in it;
// in HTTP/2 a method or a query with a space would become a request line with a version of the client's choice, and a
// host of other characters an empty Host beside an X-Forwarded-Host that says more.
func fitsHTTP1(r *http.Request) bool {
	const punctuation = "!#$%&'*+-.^_`|~"
	within := func(s, more string) bool {
		return !strings.ContainsFunc(s, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(more, c)
		})
	}
	return within(r.Method, punctuation) && within(r.Host, "!$%&'()*+,-.:;=[]_~") && !strings.Contains(r.URL.RawQuery, " ")
}

func webSocket(r *http.Request) bool {
	u := r.Header["Upgrade"]
	return r.ProtoMajor == 1 && len(u) == 1 && strings.EqualFold(u[0], "websocket")
}

func (h *httpSide) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	out.URL.Scheme = "http"
	out.URL.Host = h.service.backend.authority()
	out.Host = pr.In.Host
	out.URL.RawQuery = pr.In.URL.RawQuery // we read nothing in it, so the service shall get it as it came
	strip(out.Header, message.Identifies)
	pr.SetXForwarded()
	pr.In.Context().Value(linkKey{}).(*link).identity().set(out.Header)
	passTrailers(pr)
}

// feed is a listener whose connections come from elsewhere.
type feed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newFeed() *feed { return &feed{conns: make(chan net.Conn), done: make(chan struct{})} }

func (f *feed) put(c net.Conn) {
	select {
	case f.conns <- c:
	case <-f.done:
		_ = c.Close()
	}
}

func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

func (f *feed) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

func (f *feed) Addr() net.Addr { return feedAddr{} }

type feedAddr struct{}

func (feedAddr) Network() string { return "jurat" }
func (feedAddr) String() string  { return "attested" }
