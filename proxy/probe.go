package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/jurat-tls/jurat/proxy/upstream"
)

// prober makes health checks of a cluster's endpoints, by the way that requests go. An attested endpoint that is not affirmed
// fails them.
type prober struct{ cluster *Cluster }

// Probe makes one check on a connection of its own.
func (p prober) Probe(ctx context.Context, e *upstream.Endpoint, check *upstream.HealthCheck) error {
	shared := check.Kind == "grpc" || check.Kind == "http" && p.cluster.protocol == ProtocolHTTP2
	var offers []string
	if check.Kind != "tcp" {
		offers = p.cluster.offers(shared)[:1]
	}
	conn, err := p.cluster.connect(ctx, e.Identity(), offers...)
	if err != nil {
		return err
	}
	defer conn.Close()
	if check.Kind == "tcp" {
		return nil
	}
	authority := check.Host
	if authority == "" {
		authority = authorityOf(e.Identity())
	}
	client := over(conn, shared)
	defer client.CloseIdleConnections()
	if check.Kind == "grpc" {
		return probeGRPC(ctx, client, authority, check.Service)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://jurat"+check.Path, http.NoBody)
	if err != nil {
		return err
	}
	req.Host = authority
	req.Header.Set("User-Agent", "jurat health check")
	res, err := client.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if !check.Expected(res.StatusCode) {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

var errUsed = errors.New("the connection of a health check is used once")

// over speaks HTTP on one connection.
func over(conn net.Conn, http2 bool) *http.Transport {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetUnencryptedHTTP2(http2)
	first := make(chan net.Conn, 1)
	first <- conn
	return &http.Transport{
		Protocols: p, DisableKeepAlives: !http2, DisableCompression: true, MaxResponseHeaderBytes: maxBackHeader,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case c := <-first:
				return c, nil
			default:
				return nil, errUsed
			}
		},
	}
}

// probeGRPC asks grpc.health.v1.Health/Check. Of its messages there is field 1 of each: the name of the service, and the
// status, in which 1 is SERVING.
func probeGRPC(ctx context.Context, client *http.Transport, authority, service string) error {
	var m []byte
	if service != "" {
		m = append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service))), service...)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://jurat/grpc.health.v1.Health/Check", bytes.NewReader(frame))
	if err != nil {
		return err
	}
	req.Host = authority
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	res, err := client.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1024))
	if err != nil {
		return err
	}
	status := res.Trailer.Get("Grpc-Status")
	if status == "" {
		status = res.Header.Get("Grpc-Status")
	}
	if res.StatusCode != http.StatusOK || status != "0" {
		return fmt.Errorf("status %d, grpc-status %q", res.StatusCode, status)
	}
	if !bytes.Equal(body, []byte{0, 0, 0, 0, 2, 1 << 3, 1}) {
		return errors.New("not serving")
	}
	return nil
}
