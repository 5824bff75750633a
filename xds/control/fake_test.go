package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/resource"
)

func TestMain(m *testing.M) {
	if os.Getenv("JURAT_TEST_CONTROL") != "" {
		victim()
		return
	}
	goleak.VerifyTestMain(m)
}

// decode reads "TYPE NAME VALUE" a line. It stands for whatever makes resources of a file.
func decode(file string, raw []byte) ([]control.Document, error) {
	types := map[string]string{
		"lds": resource.Listener, "rds": resource.Route, "cds": resource.Cluster, "eds": resource.Endpoints, "sds": resource.Secret,
		"policy": resource.AttestationPolicy, "other": "type.googleapis.com/test.Other",
	}
	var all []control.Document
	for i, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		f := strings.Fields(line)
		if len(f) != 3 || types[f[0]] == "" {
			return nil, &attest.Error{Code: attest.CodeConfigSyntax, Check: "test", Subject: fmt.Sprintf("%s:%d:1", file, i+1), Got: fmt.Sprintf("%.20q", line), Want: "TYPE NAME VALUE"}
		}
		all = append(all, control.Document{Resource: resource.Resource{Type: types[f[0]], Name: f[1], Body: body(f[1], f[2])}, Position: fmt.Sprintf("%s:%d:1", file, i+1)})
	}
	return all, nil
}

func body(name, value string) []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
	return protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), value)
}

// value is what decode made the body of.
func value(b []byte) string {
	for len(b) > 0 {
		num, _, n := protowire.ConsumeTag(b)
		v, m := protowire.ConsumeBytes(b[n:])
		if n < 0 || m < 0 {
			return "?"
		}
		if num == 2 {
			return string(v)
		}
		b = b[n+m:]
	}
	return "?"
}

// hardware attests claims that a test chooses.
type hardware struct{ claims attest.Claims }

func (h hardware) Attest(_ context.Context, rd attest.ReportData) (*attest.Evidence, error) {
	raw, err := json.Marshal(map[string]any{"vendor": h.claims.Vendor, "generation": h.claims.Generation, "launch": []byte(h.claims.Measured["launch"])})
	return &attest.Evidence{Format: "test", Raw: append(rd[:], raw...)}, err
}

type verifier struct{}

func (verifier) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, now time.Time) (*attest.Claims, error) {
	var c struct {
		Vendor, Generation string
		Launch             []byte
	}
	if err := json.Unmarshal(ev.Raw[64:], &c); err != nil {
		return nil, err
	}
	tee := map[string]string{"amd": "snp", "intel": "tdx"}[c.Vendor]
	return &attest.Claims{
		Vendor: c.Vendor, TEE: tee, Product: "EPYC " + c.Generation, Generation: c.Generation, Debug: attest.Off, Migratable: attest.Off,
		Measured: map[string]attest.HexBytes{"launch": c.Launch}, ReportData: attest.ReportData(ev.Raw), TCB: attest.TCB{"snp": 23},
		Revocation: attest.Revocation{Issued: now.Add(-time.Hour), Expires: now.Add(time.Hour)},
	}, nil
}

// anything affirms whoever has evidence.
type anything struct{}

func (anything) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "sha256:test", Checks: []attest.Check{{ID: "test", Status: attest.StatusPass}}}
}

func party() *ratls.RelyingParty {
	return ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, verifier{}), anything{}, time.Now)
}

func identity(t testing.TB, claims attest.Claims, names ...string) *ratls.Identity {
	t.Helper()
	id, err := ratls.NewIdentity(t.Context(), hardware{claims}, names, [32]byte{7}, ratls.IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(id.Close)
	return id
}

func amd(generation string) attest.Claims {
	return attest.Claims{Vendor: "amd", Generation: generation, Measured: map[string]attest.HexBytes{"launch": make([]byte, 48)}}
}

const (
	proxiesPolicy = "policy: proxies\nplatforms:\n  allow: [amd milan+]\nworkload:\n  measurement: any\n  debug: off\nfreshness: {evidence: 1h}\n"
	denyMilan     = "policy: proxies\nplatforms:\n  allow: [amd milan+]\n  deny: [{vendor: amd, generation: milan, because: SB-1}]\nworkload:\n  measurement: any\n  debug: off\nfreshness: {evidence: 1h}\n"
	localGroups   = "groups: [{name: g, local: test}]\n"
	anyGroups     = "groups: [{name: g, require: proxies, any: true, nodes: ['*']}]\n"
)

// plane is a control plane over a directory, with both kinds of listeners.
type plane struct {
	*control.Control
	t          testing.TB
	dir, state string
	addr       string
	local      string
	server     *attested.Server
	stop       func()
}

// at makes a control plane; files are the first content of the directory.
func at(t testing.TB, files map[string]string, opts control.Options) *plane {
	t.Helper()
	base := t.TempDir()
	p := &plane{t: t, dir: filepath.Join(base, "dir"), state: filepath.Join(base, "state"), local: filepath.Join(base, "s")}
	p.write(files)
	p.start(opts)
	return p
}

func (p *plane) start(opts control.Options) {
	p.t.Helper()
	var err error
	if p.Control, err = control.Open(p.dir, p.state, decode, anything{}, opts); err != nil {
		p.t.Fatal(err)
	}
	acceptor := ratls.NewMutualAcceptor(identity(p.t, amd("genoa"), "127.0.0.1"), party())
	p.server = attested.NewServer(func(ctx context.Context, raw net.Conn) (attested.Conn, error) {
		conn, err := acceptor.Handshake(ctx, raw)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}, p.Handlers(), attested.Options{})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.addr = tcp.Addr().String()
	unix, err := net.Listen("unix", p.local)
	if err != nil {
		p.t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { _ = p.server.Serve(tcp) })
	work.Go(func() { _ = p.server.ServeLocal(unix, "test") })
	ctx, cancel := context.WithCancel(context.Background())
	work.Go(func() { p.Run(ctx) })
	p.stop = sync.OnceFunc(func() {
		cancel()
		p.Close()
		p.server.Stop()
		work.Wait()
	})
	p.t.Cleanup(p.stop)
}

// write replaces the directory at one moment, as Kubernetes does.
func (p *plane) write(files map[string]string) {
	p.t.Helper()
	if err := swap(p.dir, files); err != nil {
		p.t.Fatal(err)
	}
}

func swap(dir string, files map[string]string) error {
	next, err := os.MkdirTemp(filepath.Dir(dir), "v-*")
	if err != nil {
		return err
	}
	for name, text := range files {
		file := filepath.Join(next, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	link := next + ".link"
	if err := os.Symlink(next, link); err != nil {
		return err
	}
	old, _ := os.Readlink(dir)
	if err := os.Rename(link, dir); err != nil {
		return err
	}
	if old != "" {
		return os.RemoveAll(old)
	}
	return nil
}

// apply writes the directory and takes it.
func (p *plane) apply(files map[string]string) error {
	p.t.Helper()
	p.write(files)
	return p.Reload("test")
}

func (p *plane) mustApply(files map[string]string) {
	p.t.Helper()
	if err := p.apply(files); err != nil {
		p.t.Fatal(err)
	}
}

func with(base map[string]string, more ...string) map[string]string {
	all := maps.Clone(base)
	for i := 0; i < len(more); i += 2 {
		if more[i+1] == "" {
			delete(all, more[i])
			continue
		}
		all[more[i]] = more[i+1]
	}
	return all
}

// connect opens a gRPC connection by the local listener.
func (p *plane) connect() *grpc.ClientConn {
	p.t.Helper()
	return over(p.t, func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", p.local) })
}

// attest opens a gRPC connection that shows evidence.
func (p *plane) attest(id *ratls.Identity) *grpc.ClientConn {
	p.t.Helper()
	c := ratls.NewMutualConnector(id, party())
	return over(p.t, func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, p.addr) })
}

func over(t testing.TB, dial func(context.Context) (net.Conn, error)) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)), grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// delta is a scripted client of the delta protocol.
type delta struct {
	t testing.TB
	discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	answers chan *discovery.DeltaDiscoveryResponse
	failed  chan error
}

func (p *plane) delta(cc *grpc.ClientConn) *delta {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p.t.Cleanup(cancel)
	s, err := discovery.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	d := &delta{p.t, s, make(chan *discovery.DeltaDiscoveryResponse, 1000), make(chan error, 1)}
	go func() {
		for {
			m, err := s.Recv()
			if err != nil {
				d.failed <- err
				return
			}
			d.answers <- m
		}
	}()
	return d
}

func (d *delta) send(r *discovery.DeltaDiscoveryRequest) {
	d.t.Helper()
	if err := d.Send(r); err != nil {
		d.t.Fatal(err)
	}
}

func (d *delta) subscribe(typ string, names ...string) {
	d.t.Helper()
	d.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "n"}, TypeUrl: typ, ResourceNamesSubscribe: names})
}

func (d *delta) next() *discovery.DeltaDiscoveryResponse {
	d.t.Helper()
	select {
	case m := <-d.answers:
		return m
	case err := <-d.failed:
		d.t.Fatal("the stream ended:", err)
	case <-time.After(20 * time.Second):
		d.t.Fatal("no response")
	}
	return nil
}

// want takes the next response, acknowledges it, and compares: "SHORTTYPE name=value -gone".
func (d *delta) want(text string) *discovery.DeltaDiscoveryResponse {
	d.t.Helper()
	m := d.next()
	if got := showDelta(m); got != text {
		d.t.Fatalf("got %q, want %q", got, text)
	}
	d.ack(m)
	return m
}

func (d *delta) ack(m *discovery.DeltaDiscoveryResponse) {
	d.t.Helper()
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce})
}

func (d *delta) nack(m *discovery.DeltaDiscoveryResponse, why string) {
	d.t.Helper()
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ErrorDetail: &status.Status{Code: 3, Message: why}})
}

// quiet checks that nothing is said, by asking for something else whose answer comes behind it.
func (d *delta) quiet(name string) {
	d.t.Helper()
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/test.Marker", ResourceNamesSubscribe: []string{name}})
	d.want("Marker -" + name)
}

func (d *delta) end() error {
	d.t.Helper()
	for {
		select {
		case err := <-d.failed:
			return err
		case <-d.answers:
		case <-time.After(20 * time.Second):
			d.t.Fatal("the stream goes on")
		}
	}
}

func kind(typ string) string { return typ[strings.LastIndexByte(typ, '.')+1:] }

func showDelta(m *discovery.DeltaDiscoveryResponse) string {
	out := []string{kind(m.TypeUrl)}
	for _, r := range m.Resources {
		out = append(out, r.Name+"="+value(r.Resource.Value))
	}
	for _, n := range m.RemovedResources {
		out = append(out, "-"+n)
	}
	return strings.Join(out, " ")
}

// sotw is a scripted client of the state of the world.
type sotw struct {
	t testing.TB
	discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	answers chan *discovery.DiscoveryResponse
	failed  chan error
}

func (p *plane) sotw(cc *grpc.ClientConn) *sotw {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p.t.Cleanup(cancel)
	s, err := discovery.NewAggregatedDiscoveryServiceClient(cc).StreamAggregatedResources(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	d := &sotw{p.t, s, make(chan *discovery.DiscoveryResponse, 1000), make(chan error, 1)}
	go func() {
		for {
			m, err := s.Recv()
			if err != nil {
				d.failed <- err
				return
			}
			d.answers <- m
		}
	}()
	return d
}

func (d *sotw) send(r *discovery.DiscoveryRequest) {
	d.t.Helper()
	if err := d.Send(r); err != nil {
		d.t.Fatal(err)
	}
}

func (d *sotw) next() *discovery.DiscoveryResponse {
	d.t.Helper()
	select {
	case m := <-d.answers:
		return m
	case err := <-d.failed:
		d.t.Fatal("the stream ended:", err)
	case <-time.After(20 * time.Second):
		d.t.Fatal("no response")
	}
	return nil
}

func (d *sotw) want(text string, names ...string) *discovery.DiscoveryResponse {
	d.t.Helper()
	m := d.next()
	if got := showSotw(m); got != text {
		d.t.Fatalf("got %q, want %q", got, text)
	}
	d.send(&discovery.DiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, VersionInfo: m.VersionInfo, ResourceNames: names})
	return m
}

func (d *sotw) quiet(name string) {
	d.t.Helper()
	d.send(&discovery.DiscoveryRequest{TypeUrl: "type.googleapis.com/test.Marker" + name})
	d.want("Marker" + name)
}

func showSotw(m *discovery.DiscoveryResponse) string {
	out := []string{kind(m.TypeUrl)}
	for _, r := range m.Resources {
		n, _ := resource.NameOf(r.Value)
		out = append(out, n+"="+value(r.Value))
	}
	return strings.Join(out, " ")
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
