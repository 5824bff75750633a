package wellknown

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// maxHead bounds the head of an answer in bytes.
const maxHead = 16 << 10

// Get asks for the document with a nonce over conn, and for nothing else: no redirect is followed, and nobody else is asked. host
// is what the request names. Errors are *attest.Error; of the peer's text they repeat nothing.
func Get(ctx context.Context, conn net.Conn, host string, nonce []byte) (*Document, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // in the past
	defer stop()
	broken := func(err error) error {
		if ctx.Err() != nil {
			return &attest.Error{Code: attest.CodeTimeout, Check: "transport.http", Err: ctx.Err()}
		}
		return &attest.Error{Code: attest.CodeNoEvidence, Check: "transport.http", Got: "no answer in HTTP", Want: Path, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+Path+"?"+Query(nonce), nil)
	if err != nil {
		return nil, broken(err)
	}
	req.Header.Set("Accept", MediaType)
	req.Close = true
	_ = req.Write(conn) // who has answered already, and closed, is heard; reading tells of all else
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHead+2*MaxSize)), req)
	if err != nil {
		return nil, broken(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refused(resp.StatusCode)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != MediaType {
		return nil, &attest.Error{Code: attest.CodeNoEvidence, Check: "transport.http", Got: fmt.Sprintf("content of type %.60q", kind), Want: MediaType + " at " + Path}
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, MaxSize+1))
	if err != nil {
		return nil, broken(err)
	}
	return Unmarshal(raw)
}

func refused(status int) error {
	e := &attest.Error{Code: attest.CodeNoEvidence, Check: "transport.http", Got: fmt.Sprintf("status %d", status), Want: "200 at " + Path}
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		e.Code = attest.CodeCrowded
	case http.StatusNotFound:
		e.Hint = "the peer does not serve it (jurat serve --well-known), has no evidence for the key that it shows here, or its service answers in its place"
	}
	return e
}
