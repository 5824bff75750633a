package route

import (
	"fmt"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Failure is what became of a try that brought no answer.
type Failure uint8

// The failures of a try.
const (
	FailureConnect       Failure = iota // no connection was established
	FailureRefusedStream                // the endpoint refused the stream before it looked at it
	FailureReset                        // the stream or the connection broke off before the head of the answer
	FailureTimeout                      // the time of this try was over
)

type retryOn uint16

const (
	on5xx retryOn = 1 << iota
	onGatewayError
	onReset
	onConnectFailure
	onRefusedStream
	on4xx
	onStatusCodes
)

var retryNames = map[string]retryOn{
	"5xx": on5xx, "gateway-error": onGatewayError, "reset": onReset, "connect-failure": onConnectFailure,
	"refused-stream": onRefusedStream, "retriable-4xx": on4xx, "retriable-status-codes": onStatusCodes,
}

var retryGRPC = map[string]uint32{"cancelled": 1, "deadline-exceeded": 4, "resource-exhausted": 8, "internal": 13, "unavailable": 14}

// Retry is a compiled RetryPolicy.
type Retry struct {
	on        retryOn
	grpc      uint32 // a bit for each code
	codes     []int
	number    int
	base, max time.Duration
	avoid     bool
	attempts  int
	hedge     time.Duration // 0 for none
	hedgeAny  bool          // whatever the method
}

func (c *compiler) retry(at string, p *RetryPolicy) *Retry {
	r := &Retry{codes: slices.Clone(p.RetriableStatusCodes), number: max(p.NumRetries, 0), base: p.BackOffBase, max: p.BackOffMax}
	r.avoid, r.attempts = p.AvoidPreviousHosts, p.HostSelectionAttempts
	if p.NumRetries == 0 {
		r.number = 1
	}
	if len(p.RetryOn) == 0 {
		c.bad(at+".retry_on", "none", "5xx, gateway-error, reset, connect-failure or another condition")
	}
	for i, name := range p.RetryOn {
		code, grpc := retryGRPC[name]
		on, http := retryNames[name]
		switch {
		case grpc:
			r.grpc |= 1 << code
		case http:
			r.on |= on
		default:
			c.bad(fmt.Sprintf("%s.retry_on[%d]", at, i), quote(name), "one of the conditions in the documentation")
		}
	}
	if r.on&onStatusCodes == 0 && len(r.codes) > 0 {
		c.bad(at+".retriable_status_codes", "without its condition", "retriable-status-codes in retry_on")
	}
	for i, code := range r.codes {
		if code < 200 || code > 599 {
			c.bad(fmt.Sprintf("%s.retriable_status_codes[%d]", at, i), strconv.Itoa(code), "200 to 599")
		}
	}
	c.notNegative(at+".per_try_timeout", p.PerTryTimeout)
	c.notNegative(at+".per_try_idle_timeout", p.PerTryIdleTimeout)
	c.notNegative(at+".base_interval", p.BackOffBase)
	if r.base == 0 {
		r.base = 25 * time.Millisecond
	}
	if r.max == 0 {
		r.max = 10 * r.base
	}
	if r.base > 0 && r.max < r.base {
		c.bad(at+".max_interval", r.max.String(), "at least the base_interval of "+r.base.String())
	}
	if h := p.Hedge; h != nil {
		c.notNegative(at+".hedge.after", h.After)
		if r.hedge, r.hedgeAny = h.After, h.AnyMethod; r.hedge == 0 {
			r.hedge = p.PerTryTimeout
		}
		if r.hedge == 0 {
			c.bad(at+".hedge.after", "none", "a time, or per_try_timeout")
		}
	}
	if r.attempts < 0 {
		c.bad(at+".host_selection_retry_max_attempts", strconv.Itoa(r.attempts), "0 or more")
	}
	if r.attempts == 0 {
		r.attempts = 1
	}
	return r
}

// Number is how often a request may be tried after the first time.
func (r *Retry) Number() int {
	if r == nil {
		return 0
	}
	return r.number
}

// OnStatus reports whether an answer with this status is one to try again after.
func (r *Retry) OnStatus(status int) bool {
	if r == nil {
		return false
	}
	return r.on&on5xx != 0 && status/100 == 5 ||
		r.on&onGatewayError != 0 && status >= 502 && status <= 504 ||
		r.on&on4xx != 0 && status == 409 ||
		slices.Contains(r.codes, status)
}

// OnGRPC reports whether this grpc-status, where it came in the head of an answer, is one to try again after.
func (r *Retry) OnGRPC(status uint32) bool {
	return r != nil && r.grpc&(1<<status) != 0
}

// OnFailure reports whether this failure is one to try again after.
func (r *Retry) OnFailure(f Failure) bool {
	if r == nil {
		return false
	}
	switch f {
	case FailureConnect:
		return r.on&(on5xx|onGatewayError|onReset|onConnectFailure) != 0
	case FailureRefusedStream:
		return r.on&(on5xx|onGatewayError|onReset|onRefusedStream) != 0
	case FailureReset, FailureTimeout:
		return r.on&(on5xx|onGatewayError|onReset) != 0
	default:
		return false
	}
}

// HedgeAfter answers after which time without an answer a request of this method gets another try beside the one that is under
// way; 0 for never. Without AnyMethod that is for idempotent ones (RFC 9110 section 9.2.2).
func (r *Retry) HedgeAfter(method string) time.Duration {
	if r == nil || r.hedge == 0 {
		return 0
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return r.hedge
	}
	if r.hedgeAny {
		return r.hedge
	}
	return 0
}

// AvoidTried answers how many further draws there may be for an endpoint that was not tried before; 0 for none.
func (r *Retry) AvoidTried() int {
	if r == nil || !r.avoid {
		return 0
	}
	return r.attempts
}

// BackOff answers how long to wait before retry n, of which the first is 1: any time up to base × (2ⁿ - 1), at most the
// maximum. random is evenly distributed.
func (r *Retry) BackOff(n int, random uint64) time.Duration {
	limit := r.max
	if n = max(n, 1); r.base < r.max/(1<<n-1) { // where the shift is too wide, it is not
		limit = r.base * (1<<n - 1)
	}
	d, _ := bits.Mul64(random, uint64(limit)+1)
	return time.Duration(d)
}
