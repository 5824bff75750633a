package endorse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Bounds of one request.
const (
	maxBody = attest.MaxEndorsement
	// maxHeader bounds the headers of an answer, which have issuer chains in them.
	maxHeader = 64 << 10
	// fetchTime bounds one request, whoever waits for it.
	fetchTime = 15 * time.Second
)

// problem is a request that failed.
type problem struct {
	code attest.Code
	got  string
	err  error
	// host is set where the failure says something about the host rather than about this request.
	host bool
	// least is how long to wait at least before the next request.
	least time.Duration
}

// newClient makes the client that is used unless another is given. It uses the proxies of the environment as every other
// tool on the machine does.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxHeader, IdleConnTimeout: time.Minute,
	}}
}

// request makes one request.
func request(ctx context.Context, client *http.Client, address string) ([]byte, http.Header, *problem) {
	unreachable := func(got string, err error) *problem {
		return &problem{code: attest.CodeEndorserUnreachable, got: got, err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, unreachable("", err)
	}
	req.Header.Set("User-Agent", "jurat")
	resp, err := client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the address is in the error already
		}
		p := unreachable("", err)
		p.host = true
		return nil, nil, p
	}
	defer resp.Body.Close()
	if p := judgeStatus(resp, "status "+strconv.Itoa(resp.StatusCode)+" from "+req.URL.Host); p != nil {
		return nil, nil, p
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, nil, unreachable("", err)
	}
	if len(body) > maxBody {
		return nil, nil, unreachable(fmt.Sprintf("an answer of more than %d bytes from %s", maxBody, req.URL.Host), nil)
	}
	return body, resp.Header, nil
}

func judgeStatus(resp *http.Response, got string) *problem {
	wait, told := retryAfter(resp)
	switch status := resp.StatusCode; {
	case status == http.StatusOK:
		return nil
	case status == http.StatusTooManyRequests:
		if !told {
			wait = refusedWait
		}
		return &problem{code: attest.CodeEndorserRefused, got: got, host: true, least: wait}
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return &problem{code: attest.CodeEndorserRefused, got: got, least: refusedWait}
	case status >= 300 && status < 400:
		return &problem{code: attest.CodeEndorserUnreachable, got: got + ", a redirect that is not followed"}
	case status >= 400 && status < 500:
		return &problem{code: attest.CodeEndorsementMissing, got: got, least: missingWait}
	default:
		// Only a host that says so speaks for all its answers: an odd request must not silence it for everybody.
		return &problem{code: attest.CodeEndorserUnreachable, got: got, host: told, least: wait}
	}
}

// retryAfter reads how long the service wants to be left alone (RFC 9110 section 10.2.3).
func retryAfter(resp *http.Response) (time.Duration, bool) {
	value := resp.Header.Get("Retry-After")
	if seconds, _ := strconv.Atoi(value); seconds > 0 {
		return time.Duration(min(seconds, int(maxRefused/time.Second))) * time.Second, true
	}
	at, _ := http.ParseTime(value)
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil || !at.After(date) { // the service's own clock: ours may differ
		return 0, false
	}
	return min(at.Sub(date), maxRefused), true
}
