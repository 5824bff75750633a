package proxy

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func isGRPC(r *http.Request) bool {
	t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return r.ProtoMajor == 2 && (t == "application/grpc" || strings.HasPrefix(t, "application/grpc+"))
}

// grpcExpired reports whether the deadline of a gRPC call has passed. A server then resets the stream, which says so to
// its own client only: to one behind a proxy that passes on a failure, it would look like a broken service.
func grpcExpired(r *http.Request) bool {
	body, ok := r.Body.(*requestBody)
	if !ok || !isGRPC(r) {
		return false
	}
	limit, ok := grpcTimeout(r.Header.Get("Grpc-Timeout"))
	return ok && time.Since(body.began) >= limit // began before the service could start its clock
}

func grpcTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	unit, ok := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[s[len(s)-1]]
	if err != nil || !ok || time.Duration(n) > 1<<62/unit {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// sayExpired puts gRPC's DEADLINE_EXCEEDED into the trailers, which are the header when no answer has begun.
func sayExpired(h http.Header) {
	h.Set("Grpc-Status", "4")
	h.Set("Grpc-Message", "jurat: the deadline passed before the service had answered")
}
