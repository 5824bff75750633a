package grpcads_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/grpcads"
	"github.com/jurat-tls/jurat/xds/resource"
)

type taker struct{}

func (taker) Offer(*client.Update) error { return nil }

func (taker) Missing(string, []string) {}

// BenchmarkPush is one small change from a server of gRPC on loopback, until its acknowledgement is there.
func BenchmarkPush(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	push, acked := make(chan []byte), make(chan struct{})
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		var m []byte
		if err := s.RecvMsg(&m); err != nil {
			return err
		}
		for m := range push {
			if err := send(s, m); err != nil {
				return err
			}
			if err := s.RecvMsg(&m); err != nil {
				return err
			}
			acked <- struct{}{}
		}
		return nil
	}))
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	defer func() { close(push); s.Stop(); <-served }()
	transport, err := grpcads.New(l.Addr().String(), (&wire{}).dial, grpcads.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer transport.Close()
	c, err := client.New(client.Config{Kind: client.Delta, Random: rand.Float64, Rate: 1e9}, transport, taker{})
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Subscribe(resource.Cluster, []string{resource.Wildcard}, 0); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	i := 0
	round := func() {
		i++
		body, err := proto.Marshal(&clusterv3.Cluster{Name: "a", AltStatName: fmt.Sprint(i)})
		if err != nil {
			b.Fatal(err)
		}
		m, err := proto.Marshal(&discovery.DeltaDiscoveryResponse{TypeUrl: resource.Cluster, Nonce: fmt.Sprint(i), Resources: []*discovery.Resource{
			{Name: "a", Version: fmt.Sprint(i), Resource: &anypb.Any{TypeUrl: resource.Cluster, Value: body}},
		}})
		if err != nil {
			b.Fatal(err)
		}
		push <- m
		<-acked
	}
	round()
	for b.Loop() {
		round()
	}
}
