package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
)

// isGRPC reports whether a request is a gRPC call. Those go to the service in HTTP/2.
func isGRPC(r *message.Request) bool {
	const grpc = "application/grpc"
	if r.Version != message.HTTP2 {
		return false
	}
	t, _ := r.Fields.Get("Content-Type")
	t, _, _ = strings.Cut(t, ";")
	t = strings.TrimRight(t, " \t")
	return len(t) >= len(grpc) && strings.EqualFold(t[:len(grpc)], grpc) && (len(t) == len(grpc) || t[len(grpc)] == '+')
}

// grpcTimeout is the time that a gRPC call has.
func grpcTimeout(r *message.Request) (time.Duration, bool) {
	s, _ := r.Fields.Get("Grpc-Timeout")
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil || time.Duration(n) > 1<<62/unit {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// grpcStatus is that of a response without messages; beyond all codes where there is none.
func grpcStatus(r *message.Response) uint32 {
	v, ok := r.Fields.Get("Grpc-Status")
	if !ok {
		return 31
	}
	n, err := strconv.ParseUint(v, 10, 5)
	if err != nil {
		return 31
	}
	return uint32(n)
}

// late reports whether the deadline of a gRPC call has passed. A server then resets the stream, which says so to its own
// client only: to one behind a proxy that passes on a failure, it would look like a broken service.
func (x *exchange) late() bool { return !x.limit.IsZero() && !time.Now().Before(x.limit) }

// expired says DEADLINE_EXCEEDED in the client's own terms.
func (x *exchange) expired() {
	status := message.Fields{{Name: "grpc-status", Value: "4"}, {Name: "grpc-message", Value: "jurat: the deadline passed before the service had answered"}}
	if x.answered {
		as := x.as
		x.close()
		if as != nil {
			as.abort()
		}
		x.told.code = attest.CodeBackendFailed
		x.client.finish(status)
		x.report()
		return
	}
	x.say(&message.Response{Status: http.StatusOK, Fields: slices.Concat(message.Fields{{Name: "content-type", Value: "application/grpc"}}, status)}, nil)
}
