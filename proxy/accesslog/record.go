package accesslog

import (
	"net"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Record is one HTTP request, or one raw connection. A zero field is one that is not known or does not apply.
type Record struct {
	Start    time.Time     // the head of the request, or the connection, was there
	Duration time.Duration // from Start to the last byte of the answer, or to the end
	// FirstByte is the time from Start to the first byte of the answer; 0 where there was none.
	FirstByte time.Duration

	Listener string // its configured name
	Client   string // host:port that the connection came from
	SNI      string // the server name that the client asked for
	ALPN     string // the protocol that was agreed on
	Protocol string // "HTTP/1.0", "HTTP/1.1", "HTTP/2" or "TCP"

	Method    string
	Authority string // Host or :authority. What stands before an "@" is not written
	Path      string // as it came. Its query is not written

	Status int         // of the answer; 0 where none was begun, and of TCP
	Code   attest.Code // where the answer, or the refusal, was the proxy's own
	Flags  Flags

	Received uint64 // bytes of the request's body, or of the connection from the client
	Sent     uint64 // bytes of the answer's body, or of the connection to the client

	VirtualHost string
	Route       string
	Cluster     string
	Endpoint    string // address that was connected to
	Tries       int    // how often the service was asked
	TraceID     string // hexadecimal digits and "-", 64 at most; anything else is not written

	// Downstream and Upstream are what the peers proved on either side; nil where one was not asked for evidence.
	Downstream, Upstream *attest.Result
}

// path is Path without its query: what stands there is often a token.
func (r *Record) path() string {
	if i := strings.IndexAny(r.Path, "?#"); i >= 0 {
		return r.Path[:i]
	}
	return r.Path
}

// authority is Authority without user information, which is a password.
func (r *Record) authority() string { return r.Authority[strings.LastIndexByte(r.Authority, '@')+1:] }

// host is the client's address without its port.
func (r *Record) host() string {
	if host, _, err := net.SplitHostPort(r.Client); err == nil {
		return host
	}
	return r.Client
}

// trace is TraceID where it is one: it comes from a header, in which anything may stand.
func (r *Record) trace() string {
	if len(r.TraceID) > 64 {
		return ""
	}
	for i := range len(r.TraceID) {
		switch c := r.TraceID[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F', c == '-':
		default:
			return ""
		}
	}
	return r.TraceID
}
