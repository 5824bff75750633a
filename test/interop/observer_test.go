package interop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/grpcads"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

// observer takes everything that a control plane sends, translates it, and asks for what it refers to, as a proxy does. It refuses nothing, so
// that all there is to see comes.
type observer struct {
	*client.Client

	mu      sync.Mutex
	set     envoy.Set
	means   *envoy.Translation
	updates map[string]int
	missing []string
}

// observe connects to a control plane. It is let go with the test.
func observe(t *testing.T, kind client.Kind, node client.Node, address string, dial func(context.Context, string) (net.Conn, error)) *observer {
	t.Helper()
	transport, err := grpcads.New(address, dial, grpcads.Config{})
	if err != nil {
		t.Fatal(err)
	}
	o := &observer{set: envoy.Set{}, means: envoy.Translate(envoy.Input{}), updates: map[string]int{}}
	o.Client, err = client.New(client.Config{
		Kind: kind, Node: node, Random: rand.Float64, Backoff: client.Backoff{First: 50 * time.Millisecond, Most: time.Second},
	}, transport, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []string{resource.Cluster, resource.Listener} {
		if err := o.Subscribe(typ, []string{resource.Wildcard}, 0); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		_ = transport.Close()
	})
	return o
}

// plain is how a control plane is reached that does no TLS.
func plain(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// Offer implements client.Sink.
func (o *observer) Offer(u *client.Update) error {
	o.mu.Lock()
	for _, r := range u.Changed {
		o.set.Add(r)
	}
	for _, name := range u.Removed {
		delete(o.set, envoy.Key{Type: u.Type, Name: name})
	}
	o.updates[u.Type]++
	means := envoy.Translate(envoy.Input{Resources: maps.Clone(o.set), Policies: []string{"mesh", "strict"}})
	o.means = means
	o.mu.Unlock()
	for typ, names := range means.Needs {
		if typ == resource.Cluster {
			continue // is subscribed to as a whole
		}
		if err := o.Subscribe(typ, names, 0); err != nil {
			return err
		}
	}
	return nil
}

// Missing implements client.Sink.
func (o *observer) Missing(typ string, names []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.missing = append(o.missing, fmt.Sprintf("%s %q", typ, names))
}

// seen is all that has come, and what it means.
func (o *observer) seen() (envoy.Set, *envoy.Translation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.set), o.means
}

// settled is nil as soon as clusters and listeners are there, and nothing that they refer to is waited for.
func (o *observer) settled() error {
	set, means := o.seen()
	for _, typ := range []string{resource.Cluster, resource.Listener} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(set)), func(k envoy.Key) bool { return k.Type == typ }) {
			return fmt.Errorf("no %s (%+v)", typ, o.Status().LastError)
		}
	}
	for _, typ := range []string{resource.Endpoints, resource.Route} {
		for _, name := range means.Needs[typ] {
			if _, ok := set[envoy.Key{Type: typ, Name: name}]; !ok {
				return fmt.Errorf("no %s %q", typ, name)
			}
		}
	}
	return nil
}

// short is a key without what all types begin with.
func short(k envoy.Key) string {
	return k.Type[strings.LastIndexByte(k.Type, '.')+1:] + " " + k.Name
}

// judge holds what a translation says is wrong against what may be wrong, by the short key of the resource: the text that its error has
// to contain. A resource whose error is another one is shown as JSON.
func (o *observer) judge(t *testing.T, allowed map[string]string) {
	t.Helper()
	set, means := o.seen()
	compare := func(a, b envoy.Key) int { return strings.Compare(short(a), short(b)) }
	met := map[string]bool{}
	for _, k := range slices.SortedFunc(maps.Keys(means.Problems), compare) {
		err := means.Problems[k]
		if want, ok := allowed[short(k)]; ok && strings.Contains(err.Error(), want) {
			met[short(k)] = true
			continue
		}
		text, textErr := envoy.Text(set[k])
		if textErr != nil {
			text = []byte(textErr.Error())
		}
		t.Errorf("%s: %v\n%s", short(k), err, text)
	}
	for k := range allowed {
		if !met[k] {
			t.Errorf("%s is expected to be refused, and was not", k)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(means.Warming), compare) {
		t.Errorf("%s waits for %q", short(k), means.Warming[k])
	}
	if err := means.Config.Check(); err != nil {
		t.Errorf("the configuration: %v", err)
	}
	for _, k := range slices.SortedFunc(maps.Keys(means.Notes), compare) {
		t.Logf("note: %s: %s", short(k), strings.Join(means.Notes[k], "; "))
	}
}
