package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/internal/request"
	"github.com/jurat-tls/jurat/xds/resource"
)

// nobody is a stream on which nothing moves.
type nobody struct{}

func (nobody) Context() context.Context { return context.Background() }
func (nobody) Peer() *attested.Peer     { return &attested.Peer{} }
func (nobody) Recv() ([]byte, error)    { panic("not here") }
func (nobody) Send(...[]byte) error     { panic("not here") }

// model is a client that does what the protocol says, at times of its own.
type model struct {
	t        *rapid.T
	ss       *session
	delta    bool
	has      map[string]map[string]string // that it accepted: type, name, value
	names    map[string][]string          // subscriptions; "*" for all
	inbox    [][]byte                     // encoded responses that it has not looked at
	versions map[string]uint64
	nacked   map[string]bool // it refused the last response of the type
	refuses  bool            // it refused something of clusters once: what follows is not asked
}

var modelTypes = []string{resource.Cluster, resource.Endpoints, resource.Listener}

// draw makes a consistent directory: listeners name clusters that are there.
func draw(t *rapid.T, suffix string) Files {
	clusters := rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 1, 5, rapid.ID).Draw(t, "clusters")
	var b strings.Builder
	for _, c := range clusters {
		fmt.Fprintf(&b, "%s c%d v%d%s\n", resource.Cluster, c, rapid.IntRange(0, 2).Draw(t, "v"), suffix)
		fmt.Fprintf(&b, "%s c%d v%d%s\n", resource.Endpoints, c, rapid.IntRange(0, 2).Draw(t, "v"), suffix)
	}
	if suffix != "" { // something changes of each type
		fmt.Fprintf(&b, "%s l9 c%d\n", resource.Listener, clusters[0])
	}
	for _, l := range rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 0, 4, rapid.ID).Draw(t, "listeners") {
		fmt.Fprintf(&b, "%s l%d c%d\n", resource.Listener, l, rapid.SampledFrom(clusters).Draw(t, "to"))
	}
	return Files{groupsFile: []byte("groups: [{name: g, local: test}]\n"), "g/a.yaml": []byte(b.String())}
}

func modelDecode(_ string, raw []byte) ([]Document, error) {
	var all []Document
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		body := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), f[1])
		body = protowire.AppendString(protowire.AppendTag(body, 2, protowire.BytesType), f[2])
		all = append(all, Document{Resource: resource.Resource{Type: f[0], Name: f[1], Body: body}})
	}
	return all, nil
}

func bodyValue(b []byte) string {
	_, _, n := protowire.ConsumeTag(b)
	_, m := protowire.ConsumeBytes(b[n:])
	b = b[n+m:]
	_, _, n = protowire.ConsumeTag(b)
	v, _ := protowire.ConsumeBytes(b[n:])
	return string(v)
}

func (m *model) request(typ, nonce string, refused bool, subscribe, unsubscribe []string) {
	r := &request.Request{Type: typ, Nonce: nonce, Refused: refused, Reason: "no", Subscribe: subscribe, Unsubscribe: unsubscribe}
	if !m.delta {
		r.Subscribe, r.Unsubscribe = m.names[typ], nil
	}
	if err := m.ss.take(r); err != nil {
		m.t.Fatal(err)
	}
}

// run lets the server say everything that it would.
func (m *model) run() {
	for n := 0; ; n++ {
		pieces := m.ss.next()
		if pieces == nil {
			return
		}
		if n > 1000 {
			m.t.Fatal("it does not end")
		}
		m.inbox = append(m.inbox, slices.Concat(pieces...))
	}
}

// look takes one response.
func (m *model) look(refuse bool) {
	raw := m.inbox[0]
	m.inbox = m.inbox[1:]
	var typ, nonce, version string
	has := map[string]string{}
	var gone []string
	if m.delta {
		var r discovery.DeltaDiscoveryResponse
		if err := proto.Unmarshal(raw, &r); err != nil {
			m.t.Fatal(err)
		}
		typ, nonce, version, gone = r.TypeUrl, r.Nonce, r.SystemVersionInfo, r.RemovedResources
		for _, one := range r.Resources {
			if _, twice := has[one.Name]; twice || one.Resource.TypeUrl != typ {
				m.t.Fatalf("%s twice, or of type %s", one.Name, one.Resource.TypeUrl)
			}
			has[one.Name] = bodyValue(one.Resource.Value)
		}
		for _, n := range gone {
			if _, both := has[n]; both {
				m.t.Fatalf("%s is there and gone", n)
			}
		}
	} else {
		var r discovery.DiscoveryResponse
		if err := proto.Unmarshal(raw, &r); err != nil {
			m.t.Fatal(err)
		}
		typ, nonce, version = r.TypeUrl, r.Nonce, r.VersionInfo
		for _, one := range r.Resources {
			n, _ := resource.NameOf(one.Value)
			has[n] = bodyValue(one.Value)
		}
		if resource.Whole(typ) {
			for n := range m.has[typ] {
				if _, ok := has[n]; !ok {
					gone = append(gone, n)
				}
			}
		}
	}
	var v uint64
	if _, err := fmt.Sscan(version, &v); err != nil || v < m.versions[typ] {
		m.t.Fatalf("version %s of %s after %d", version, typ, m.versions[typ])
	}
	m.versions[typ] = v
	m.nacked[typ] = refuse
	if refuse {
		m.refuses = m.refuses || typ == resource.Cluster
	} else {
		for n, v := range has {
			if slices.Contains(m.names[typ], "*") || slices.Contains(m.names[typ], n) { // it may have let go of it meanwhile
				m.has[typ][n] = v
			}
		}
		for _, n := range gone {
			delete(m.has[typ], n)
		}
	}
	m.request(typ, nonce, refuse, nil, nil)
	m.unbroken()
}

// unbroken: no listener that is in use names a cluster that is not there.
func (m *model) unbroken() {
	if m.refuses || !slices.Contains(m.names[resource.Cluster], "*") {
		return
	}
	for l, c := range m.has[resource.Listener] {
		if _, ok := m.has[resource.Cluster][c]; !ok {
			m.t.Fatalf("listener %s names cluster %s, which is not there", l, c)
		}
	}
}

// subscribe changes a subscription.
func (m *model) subscribe(typ string, names []string) {
	old, first := m.names[typ]
	first = !first
	var add, drop []string
	for _, n := range names {
		if !slices.Contains(old, n) {
			add = append(add, n)
		}
	}
	for _, n := range old {
		if !slices.Contains(names, n) {
			drop = append(drop, n)
			if n != "*" {
				delete(m.has[typ], n)
			}
		}
	}
	if !first && len(add)+len(drop) == 0 {
		return
	}
	m.names[typ] = names
	nonce := ""
	if sub := m.ss.subs[typ]; !m.delta && sub != nil {
		nonce = sub.last
		if sub.nonce != "" { // it would acknowledge what it has not seen
			for len(m.inbox) > 0 {
				m.look(false)
			}
		}
	}
	m.request(typ, nonce, false, add, drop)
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &Control{opts: Options{Now: time.Now}}
		m := &model{
			t: t, delta: rapid.Bool().Draw(t, "delta"), has: map[string]map[string]string{}, names: map[string][]string{}, versions: map[string]uint64{}, nacked: map[string]bool{},
			ss: &session{c: c, s: nobody{}, subs: map[string]*subscription{}},
		}
		m.ss.delta = m.delta
		for _, typ := range modelTypes {
			m.has[typ] = map[string]string{}
		}
		var files Files
		st := &state{}
		change := func(suffix string) {
			files = draw(t, suffix)
			d, err := parse(files, modelDecode, nil)
			if err != nil {
				t.Fatal(err)
			}
			next, _, err := build(d, st, 1)
			if err != nil {
				t.Fatal(err)
			}
			if st.digest != next.digest && next.serial <= st.serial {
				t.Fatalf("serial %d after %d", next.serial, st.serial)
			}
			// Through what is stored of it, as after a restart.
			if rapid.Bool().Draw(t, "restart") {
				kept, err := versionsOf(keepState(next, files))
				if err != nil {
					t.Fatal(err)
				}
				again, changes, err := build(d, kept, 1<<40)
				if err != nil || len(changes) != 0 || again.serial != next.serial {
					t.Fatalf("after a restart: %v, %d and not %d, %v", changes, again.serial, next.serial, err)
				}
				for typ, s := range next.groups[0].sets {
					if again.groups[0].set(typ).version != s.version {
						t.Fatalf("after a restart: %s is %d and not %d", typ, again.groups[0].set(typ).version, s.version)
					}
				}
				next = again
			}
			st = next
			m.ss.st, m.ss.group = st, st.groups[0]
		}
		change("")
		for _, typ := range []string{resource.Cluster, resource.Listener} {
			m.subscribe(typ, []string{"*"})
		}
		some := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"c0", "c1", "c2", "c3", "c9"}), 1, 4, rapid.ID)
		m.subscribe(resource.Endpoints, some.Draw(t, "names"))
		t.Repeat(map[string]func(*rapid.T){
			"change": func(*rapid.T) { change("") },
			"serve":  func(*rapid.T) { m.run() },
			"look": func(t *rapid.T) {
				if len(m.inbox) == 0 {
					t.Skip()
				}
				m.look(rapid.IntRange(0, 9).Draw(t, "refuse") == 0)
			},
			"endpoints": func(t *rapid.T) { m.subscribe(resource.Endpoints, some.Draw(t, "names")) },
		})
		// In the end it has everything that it wants: what it refused comes with the next change.
		change("final")
		for m.run(); len(m.inbox) > 0; m.run() {
			m.look(false)
		}
		for _, typ := range modelTypes {
			sub, s := m.ss.subs[typ], m.ss.group.set(typ)
			want := map[string]string{}
			for _, n := range s.names {
				if slices.Contains(m.names[typ], "*") || slices.Contains(m.names[typ], n) {
					value, _ := protowire.ConsumeBytes(s.entries[n].any[len(appendText(nil, anyType, typ))+1:])
					want[n] = bodyValue(value)
				}
			}
			if !m.delta && typ == resource.Endpoints { // what is gone is not told
				for n := range m.has[typ] {
					if !s.has(n) {
						delete(m.has[typ], n)
					}
				}
			}
			if !maps.Equal(m.has[typ], want) {
				t.Fatalf("%s: it has %v, want %v", short(typ), m.has[typ], want)
			}
			if !sub.settled(s) {
				t.Fatalf("%s is not settled: %+v", short(typ), sub)
			}
		}
	})
}
