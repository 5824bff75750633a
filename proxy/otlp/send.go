package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	firstPause  = time.Second // before a request is repeated; twice as long each time
	longestWait = 30 * time.Second
	// longestAfter bounds what a collector can ask for with Retry-After.
	longestAfter = 10 * time.Minute

	maxAnswer = 64 << 10 // bytes of a response that are read
	maxHead   = 64 << 10
)

// newClient makes one that sends to the collector and to nobody else: not to a proxy that the environment names, and not to
// where a redirect points.
func newClient(config Config, in Inputs, scheme string) *http.Client {
	dial := in.Dial
	if scheme == "http" && !config.UnsafePlaintextToOtherMachines {
		dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return stayHere(in.Dial(ctx, network, address))
		}
	}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dial, DialTLSContext: in.DialTLS, TLSClientConfig: &tls.Config{RootCAs: in.Roots, Certificates: in.Present, MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: maxHead, MaxConnsPerHost: 2, IdleConnTimeout: 2 * time.Minute, DisableCompression: true,
		},
	}
}

// stayHere closes a connection that has left this machine: what "localhost" means is for others to say.
func stayHere(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		_ = conn.Close()
		return nil, fmt.Errorf("the collector's name leads to %v, another machine, and TLS is not used", tcp.IP)
	}
	return conn, nil
}

// signal is what goes to one URL. Only its counters are for more than one goroutine.
type signal struct {
	name      string
	url       *url.URL
	notBefore time.Time // the collector wants to be left alone until then
	troubled  bool      // and that was logged

	sent, rejected, failed, retries atomic.Uint64
}

func (s *signal) counts() Counts {
	return Counts{Sent: s.sent.Load(), Rejected: s.rejected.Load(), Failed: s.failed.Load(), Retries: s.retries.Load()}
}

// send sends a message of so many items, again where the collector may take it later.
func (e *Exporter) send(s *signal, items int, message func() proto.Message) {
	if e.ctx.Err() != nil {
		e.giveUp(s, items)
		return
	}
	body, err := encode(message())
	if err != nil {
		e.log(s, "a message can't be encoded")
		e.giveUp(s, items)
		return
	}
	if !e.isClosing() { // at the end it is now or never
		e.wait(s.notBefore.Sub(e.in.Now()))
	}
	until := e.in.Now().Add(e.config.RetryFor)
	for pause := firstPause; ; pause = min(2*pause, longestWait) {
		a := e.post(s.url, body)
		if a.err == nil {
			rejected := uint64(min(max(a.rejected, 0), int64(items)))
			s.rejected.Add(rejected)
			s.sent.Add(uint64(items) - rejected)
			if rejected > 0 {
				e.log(s, "the collector rejects a part")
			} else {
				e.log(s, "")
			}
			return
		}
		e.log(s, plain(a.err))
		wait := a.after
		if wait == 0 {
			wait = time.Duration(float64(pause) * (0.5 + e.in.Random())) // apart from those who failed at the same time
		}
		if a.again {
			s.notBefore = e.in.Now().Add(wait)
		}
		if !a.again || s.notBefore.After(until) || !e.wait(wait) {
			e.giveUp(s, items)
			return
		}
		s.retries.Add(1)
	}
}

func (e *Exporter) giveUp(s *signal, items int) {
	s.failed.Add(uint64(items))
	if e.ctx.Err() != nil {
		e.cut.Store(true)
	}
}

func (e *Exporter) isClosing() bool {
	select {
	case <-e.closing:
		return true
	default:
		return false
	}
}

// wait answers false when nothing is to be sent any more. What waits when Shutdown comes waits no longer.
func (e *Exporter) wait(d time.Duration) bool {
	closing := e.closing
	if e.isClosing() {
		closing = nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-closing:
	case <-e.ctx.Done():
	}
	return e.ctx.Err() == nil
}

// log says what is wrong once, and that it is well again. It names no header and repeats nothing that the collector said, which
// may be one.
func (e *Exporter) log(s *signal, trouble string) {
	if (trouble != "") == s.troubled {
		return
	}
	s.troubled = !s.troubled
	if trouble == "" {
		e.in.Log.Info("the collector takes all again", "signal", s.name)
		return
	}
	e.in.Log.Warn("telemetry does not reach the collector", "signal", s.name, "error", trouble)
}

// plain is err without the URL.
func plain(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

// answer is what came of one request.
type answer struct {
	err      error
	again    bool          // the same request may be sent again
	after    time.Duration // not before; 0 where the collector did not say
	rejected int64
}

func (e *Exporter) post(to *url.URL, body []byte) answer {
	ctx, cancel := context.WithTimeout(e.ctx, e.config.Timeout)
	defer cancel()
	header := http.Header{}
	for name, value := range e.config.Headers {
		header.Set(name, value)
	}
	header.Set("Content-Type", "application/x-protobuf")
	header.Set("Content-Encoding", "gzip")
	header.Set("User-Agent", "jurat")
	reader := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req := &http.Request{Method: http.MethodPost, URL: to, Header: header, ContentLength: int64(len(body)), GetBody: reader}
	req.Body, _ = reader()
	resp, err := e.client.Do(req.WithContext(ctx))
	if err != nil {
		return answer{err: err, again: true}
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch status := resp.StatusCode; {
	case status/100 == 2:
		// What can't be read of an answer changes nothing: a request that was taken must not be sent again.
		return answer{rejected: rejected(text)}
	case status == http.StatusTooManyRequests, status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return answer{err: fmt.Errorf("the collector answered %d", status), again: true, after: e.retryAfter(resp.Header)}
	default:
		return answer{err: fmt.Errorf("the collector answered %d", status)}
	}
}

// retryAfter reads Retry-After (RFC 9110 section 10.2.3), 0 where that says nothing.
func (e *Exporter) retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longestAfter)
	}
	at, _ := http.ParseTime(value)            // what is none was long ago
	now, err := http.ParseTime(h.Get("Date")) // by the same clock
	if err != nil {
		now = e.in.Now()
	}
	return min(max(at.Sub(now), 0), longestAfter)
}

// encode makes the body of a request. TracesData and MetricsData are on the wire what the requests of the collector's service
// are, whose package links gRPC.
func encode(m proto.Message) ([]byte, error) {
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	_, _ = z.Write(raw) // a Buffer takes everything
	_ = z.Close()
	return b.Bytes(), nil
}

// rejected reads how many items a collector did not take, from an ExportTraceServiceResponse or ExportMetricsServiceResponse:
// field 1 of field 1. It is 0 where there is none, or where the answer can't be read.
func rejected(response []byte) int64 {
	var n int64
	if !fields(response, protowire.BytesType, func(value []byte) bool {
		partial, _ := protowire.ConsumeBytes(value)
		return fields(partial, protowire.VarintType, func(value []byte) bool {
			v, _ := protowire.ConsumeVarint(value)
			n = int64(v)
			return true
		})
	}) {
		return 0
	}
	return n
}

// fields goes through a message, and calls each with every field 1 of this type. It answers false where the message is
// malformed, or where each does.
func fields(message []byte, of protowire.Type, each func(value []byte) bool) bool {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return false
		}
		m := protowire.ConsumeFieldValue(number, kind, message[n:])
		if m < 0 || number == 1 && kind == of && !each(message[n:n+m]) {
			return false
		}
		message = message[n+m:]
	}
	return true
}
