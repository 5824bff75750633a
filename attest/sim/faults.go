package sim

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Faults stands before a vendor's service and makes it misbehave, for tests. It is safe for concurrent use.
type Faults struct {
	service  http.Handler
	fault    atomic.Pointer[Fault]
	requests atomic.Int64
}

// Fault answers a request in place of service, which it may ask.
type Fault func(w http.ResponseWriter, r *http.Request, service http.Handler)

// NewFaults makes a service that behaves until it is told otherwise.
func NewFaults(service http.Handler) *Faults { return &Faults{service: service} }

// Set makes the service misbehave from now on; nil makes it behave again.
func (f *Faults) Set(fault Fault) { f.fault.Store(&fault) }

// Requests is how many requests came so far.
func (f *Faults) Requests() int64 { return f.requests.Load() }

// ServeHTTP implements http.Handler.
func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.requests.Add(1)
	if fault := f.fault.Load(); fault != nil && *fault != nil {
		(*fault)(w, r, f.service)
		return
	}
	f.service.ServeHTTP(w, r)
}

// Down is a service that is not available.
func Down(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.WriteHeader(http.StatusServiceUnavailable)
}

// Limit is a service that wants to be left alone for a while.
func Limit(wait time.Duration) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
		w.WriteHeader(http.StatusTooManyRequests)
	}
}

// Slow is a service that answers once release is closed; never, where that is nil.
func Slow(release <-chan struct{}) Fault {
	return func(w http.ResponseWriter, r *http.Request, service http.Handler) {
		select {
		case <-release:
			service.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}
}

// Truncated breaks off in the middle of an answer.
func Truncated(w http.ResponseWriter, r *http.Request, service http.Handler) {
	changed(w, r, service, func(body []byte) []byte {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		return body[:len(body)/2]
	})
}

// TwinKeys repeats what is signed in a JSON answer under the same key in capitals, with every status the best: a reader that
// takes keys whatever their case verifies one and believes the other.
func TwinKeys(w http.ResponseWriter, r *http.Request, service http.Handler) {
	changed(w, r, service, func(body []byte) []byte {
		key, rest, ok := strings.Cut(strings.TrimPrefix(string(body), `{"`), `":`)
		value, _, signed := strings.Cut(rest, `,"signature"`)
		if !ok || !signed {
			return body
		}
		for _, status := range platformStatuses {
			value = strings.ReplaceAll(value, `"`+status+`"`, `"`+upToDate+`"`)
		}
		return append(bytes.TrimSuffix(body, []byte("}")), `,"`+strings.ToUpper(key)+`":`+value+"}"...)
	})
}

// Redirect sends whoever asks to the same path elsewhere.
func Redirect(base string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, base+r.URL.RequestURI(), http.StatusFound)
	}
}

// Oversized answers size bytes, whatever was asked for.
func Oversized(size int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = w.Write(make([]byte, size)) }
}

// Wrong answers something else than what was asked for, as a captive portal does.
func Wrong(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = w.Write([]byte("<html><title>Welcome</title></html>"))
}

// changed answers what service does, with another body.
func changed(w http.ResponseWriter, r *http.Request, service http.Handler, change func([]byte) []byte) {
	k := &keeper{ResponseWriter: w}
	service.ServeHTTP(k, r)
	_, _ = w.Write(change(k.body.Bytes()))
}

// keeper keeps back the body of an answer.
type keeper struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (k *keeper) Write(p []byte) (int, error) { return k.body.Write(p) }
