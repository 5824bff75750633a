package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// patience is for what takes no time unless something is broken.
const patience = 20 * time.Second

// clientConfig is that of every client of ours. One key exchange for all, or Go's peers would get a dearer one. Nobody
// resumes. The name is what jurat goes by to show the certificate that all have.
func clientConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		ServerName: "localhost", InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: protocols,
		CurvePreferences: []tls.CurveID{tls.X25519}, DynamicRecordSizingDisabled: true,
	}
}

// dialer makes connections of one sort.
type dialer func(ctx context.Context) (net.Conn, error)

func dialTLS(addr string, protocols ...string) dialer {
	config := clientConfig(protocols...)
	return func(ctx context.Context) (net.Conn, error) {
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		return conn, nil
	}
}

func dialPlain(addr string) dialer {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", addr) }
}

// client speaks HTTP/1.1 over one connection.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (d dialer) client(ctx context.Context) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := d(ctx)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReaderSize(conn, 4<<10)}, nil
}

// clients are n of them.
func (d dialer) clients(ctx context.Context, n int) ([]*client, error) {
	all := make([]*client, 0, n)
	for range n {
		c, err := d.client(ctx)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func closeAll(all []*client) {
	for _, c := range all {
		_ = c.Close()
	}
}

func request(path string, fields ...string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n")
}

// get sends a request and reads the answer of so many bytes.
func (c *client) get(req []byte, want int64) error {
	if _, err := c.Write(req); err != nil {
		return err
	}
	return c.answer(want)
}

// answer reads one of so many bytes.
func (c *client) answer(want int64) error {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("answer: %.60q", line)
	}
	length, err := readFields(c.r)
	if err != nil {
		return err
	}
	if length != want {
		return fmt.Errorf("an answer of %d bytes instead of %d", length, want)
	}
	early := min(length, int64(c.r.Buffered()))
	if _, err := c.r.Discard(int(early)); err != nil {
		return err
	}
	if length == early {
		return nil
	}
	return receive(c.Conn, length-early, make([]byte, min(length-early, chunk)))
}

// order asks the backend behind TCP to send or to receive n bytes, and does the other.
func order(conn net.Conn, what byte, n int64) error {
	buf := make([]byte, chunk)
	if _, err := conn.Write(binary.BigEndian.AppendUint64([]byte{what}, uint64(n))); err != nil {
		return err
	}
	if what == 'S' {
		return receive(conn, n, buf)
	}
	if err := send(conn, n, buf); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, buf[:1])
	return err
}

// probe checks that a peer does what it's measured at, and answers the size of its certificate.
func probe(ctx context.Context, p *peer) (leaf int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tickets := new(ticketCount)
	for _, protocol := range []string{"http/1.1", "h2"} {
		config := clientConfig(protocol)
		config.ClientSessionCache = tickets
		protocols := new(http.Protocols)
		protocols.SetHTTP1(protocol == "http/1.1")
		protocols.SetHTTP2(protocol == "h2")
		transport := &http.Transport{TLSClientConfig: config, Protocols: protocols}
		defer transport.CloseIdleConnections()
		send := func(method, path string, body io.Reader, header http.Header, size int) (*http.Response, error) {
			req, err := http.NewRequestWithContext(ctx, method, "https://"+p.front+path, body)
			if err != nil {
				return nil, err
			}
			req.Header = header
			res, err := transport.RoundTrip(req)
			if err != nil {
				return nil, err
			}
			got, err := io.ReadAll(res.Body)
			if err == nil && (res.StatusCode != http.StatusOK || len(got) != size) {
				err = fmt.Errorf("%s in %s: status %d, %d bytes", path, protocol, res.StatusCode, len(got))
			}
			return res, errors.Join(err, res.Body.Close())
		}
		res, err := send(http.MethodGet, "/1k", nil, http.Header{}, 1000)
		if err != nil {
			return 0, err
		}
		if got := tls.CipherSuiteName(res.TLS.CipherSuite); got != "TLS_AES_128_GCM_SHA256" || res.TLS.NegotiatedProtocol != protocol {
			return 0, fmt.Errorf("agreed on %s and %q", got, res.TLS.NegotiatedProtocol)
		}
		leaf = len(res.TLS.PeerCertificates[0].Raw)
		if protocol == "h2" {
			res, err := send(http.MethodPost, grpcPath, bytes.NewReader(message()), http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}, grpcSize)
			if err != nil {
				return 0, err
			}
			if res.Trailer.Get("Grpc-Status") != "0" {
				return 0, fmt.Errorf("no trailers in %s", grpcPath)
			}
		}
	}
	if tickets.n > 0 {
		return leaf, errors.New("sends session tickets")
	}
	return leaf, nil
}

const grpcPath = "/bench.Echo/Unary"

// ticketCount counts the tickets that come, and keeps none.
type ticketCount struct{ n int }

func (t *ticketCount) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (t *ticketCount) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		t.n++
	}
}
