package control

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/internal/request"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Whatever clients send, in whatever order, nothing panics, and each response is a message.
func FuzzRequests(f *testing.F) {
	for _, m := range []proto.Message{
		&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster, ResourceNamesSubscribe: []string{"*", "c0", "c9"}, InitialResourceVersions: map[string]string{"c0": "1", "c8": "x"}},
		&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster, ResourceNamesUnsubscribe: []string{"*", "c0"}, ResponseNonce: "1"},
		&discovery.DiscoveryRequest{TypeUrl: resource.Endpoints, ResourceNames: []string{"c1"}, ResponseNonce: "2"},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(true, raw, raw)
		f.Add(false, raw, raw)
	}
	files := Files{groupsFile: []byte("groups: [{name: g, local: test}]\n"), "g/a.yaml": []byte(resource.Cluster + " c0 a\n" + resource.Endpoints + " c1 a\n")}
	d, err := parse(files, modelDecode, nil)
	if err != nil {
		f.Fatal(err)
	}
	st, _, err := build(d, &state{}, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, delta bool, first, second []byte) {
		ss := &session{c: &Control{opts: Options{Now: time.Now}}, s: nobody{}, delta: delta, subs: map[string]*subscription{}, st: st, group: st.groups[0]}
		for _, raw := range [][]byte{first, second, first} {
			r, err := request.Read(raw, delta, maxParts)
			if err != nil || ss.take(r) != nil {
				return
			}
			for range 100 {
				pieces := ss.next()
				if pieces == nil {
					break
				}
				var whole []byte
				for _, p := range pieces {
					whole = append(whole, p...)
				}
				var m proto.Message = new(discovery.DiscoveryResponse)
				if delta {
					m = new(discovery.DeltaDiscoveryResponse)
				}
				if err := proto.Unmarshal(whole, m); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// What would be large in memory is refused before anything is made of it.
func TestRequestsAreBounded(t *testing.T) {
	node := bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, 9, protowire.BytesType), nil), maxParts) // extensions
	ss := &session{s: says(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), node)), delta: true}
	var st *attested.Status
	if _, err := ss.receive(); !errors.As(err, &st) || st.Code != attested.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

// says is a stream that has this to say.
type says []byte

func (says) Context() context.Context { return context.Background() }
func (says) Peer() *attested.Peer     { return &attested.Peer{} }
func (s says) Recv() ([]byte, error)  { return s, nil }
func (says) Send(...[]byte) error     { panic("not here") }

// A history that anybody wrote is read or refused, and what is read goes on in order.
func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"index":1,"serial":2,"digest":"x","stored":"y"}` + "\n"))
	f.Add([]byte("{}\n\n"))
	f.Add([]byte("half"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file := filepath.Join(t.TempDir(), "history")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		n := uint64(0)
		_ = readHistory(file, func(c *Change, _ []byte) error {
			if n++; c.Index != n {
				t.Errorf("line %d is called %d", n, c.Index)
			}
			return nil
		})
	})
}
