package grpcads_test

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"

	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/grpcads"
	"github.com/jurat-tls/jurat/xds/resource"
)

// printer takes everything, and subscribes to the endpoints of clusters under their names.
type printer struct{ client *client.Client }

func (p *printer) Offer(u *client.Update) error {
	for _, r := range u.Changed {
		fmt.Printf("%s has version %s\n", r.Name, r.Version)
	}
	if u.Type != resource.Cluster {
		return nil
	}
	var names []string
	for _, r := range u.Changed {
		names = append(names, r.Name)
	}
	return p.client.Subscribe(resource.Endpoints, names, 0)
}

func (p *printer) Missing(typ string, names []string) {
	log.Printf("%s: nothing about %q yet", typ, names)
}

func Example() {
	attested := func(ctx context.Context, address string) (net.Conn, error) {
		return nil, fmt.Errorf("%s: a dialer that appraises the peer belongs here", address)
	}
	transport, err := grpcads.New("control.example:15012", attested, grpcads.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer transport.Close()
	sink := &printer{}
	sink.client, err = client.New(client.Config{Kind: client.Delta, Random: rand.Float64, Node: client.Node{ID: "proxy-1"}}, transport, sink)
	if err != nil {
		log.Fatal(err)
	}
	if err := sink.client.Subscribe(resource.Cluster, []string{resource.Wildcard}, 0); err != nil {
		log.Fatal(err)
	}
	_ = sink.client.Run(context.Background())
}
