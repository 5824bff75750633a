package proxy_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// However many clusters wait for a DNS that does not answer, a change waits for all of them together: whoever answers for the DNS is not
// to decide how long an urgent one takes that comes behind it.
func TestClustersWaitTogether(t *testing.T) {
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	r := running(t) // whose end is before that of the resolver
	t.Cleanup(func() { net.DefaultResolver = before })
	c := &config.Config{Listeners: []config.Listener{{Address: "web", Serving: config.Serving{HTTP: allTo("one")}}}, Clusters: []config.Cluster{clusterOf("one", says(t, "a"))}}
	for i := range 4 {
		c.Clusters = append(c.Clusters, config.Cluster{
			Config: upstream.Config{Name: fmt.Sprint("dns ", i)}, DNS: &upstream.DNS{Names: []upstream.DNSName{{Host: fmt.Sprintf("name%d.example", i), Port: 1}}},
		})
	}
	began := time.Now()
	apply(t, r, c, "1", newBuilder(t))
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("it took %v", took)
	}
}
