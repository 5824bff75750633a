package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/jurat-tls/jurat/proxy"
)

// Who came for a handshake alone is not served, and not refused; the place that it had is free again.
func TestDone(t *testing.T) {
	var log bytes.Buffer
	in := inboundTCP(t, func(_ context.Context, raw net.Conn) (proxy.Conn, error) {
		_, _ = raw.Write([]byte("done"))
		return nil, fmt.Errorf("wrapped: %w", proxy.ErrDone)
	}, silent(t), proxy.Limits{Connections: 1, Peer: 1, Handshakes: 1}, slog.New(slog.NewTextHandler(&log, nil)))
	addr := start(t, in)
	for range 3 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "done" {
			t.Fatalf("%q %v", got, err)
		}
		_ = c.Close()
	}
	until(t, "all are through", func() bool { return in.Stats().Accepted == 3 })
	if st := in.Stats(); len(st.Refused) != 0 || st.Active != 0 || st.Handshakes != 0 || log.Len() != 0 {
		t.Errorf("%+v\n%s", st, log.String())
	}
}
