package agent_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// scripted is a control plane that has one resource of each type, for whoever asks for the type.
type scripted struct {
	has       map[string]*client.Response
	responses chan *client.Response
}

func (s *scripted) Open(ctx context.Context, _ client.Kind) (client.Stream, error) {
	if s.has == nil {
		return nil, errors.New("nobody is there")
	}
	return &scriptedStream{s, ctx}, nil
}

type scriptedStream struct {
	*scripted
	ctx context.Context
}

func (s *scriptedStream) Send(r *client.Request) error {
	if answer := s.has[r.Type]; answer != nil {
		delete(s.has, r.Type)
		s.responses <- answer
	}
	return nil
}

func (s *scriptedStream) Recv() (*client.Response, error) {
	select {
	case r := <-s.responses:
		return r, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// locked is a Store for two goroutines.
type locked struct {
	mu sync.Mutex
	memory
}

func (l *locked) Load() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.memory.Load()
}

func (l *locked) Save(raw []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.memory.Save(raw)
}

// run has a client feed a bench until done is true.
func run(b *bench, transport client.Transport, store client.Store, done func(agent.Status) bool) {
	b.Helper()
	c, err := client.New(client.Config{Kind: client.Delta, Random: func() float64 { return 0.5 }, Store: store, SaveAfter: time.Millisecond}, transport, b.Agent)
	if err != nil {
		b.Fatal(err)
	}
	if err := b.Start(c); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = c.Run(ctx) })
	defer b.Kept()
	defer work.Wait()
	defer cancel()
	for end := time.Now().Add(30 * time.Second); !done(b.Status()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("still %+v", b.Status())
		}
	}
}

// What was accepted is used again after a restart without a control plane, within the limits of then.
func TestRestart(t *testing.T) {
	defer goleak.VerifyNone(t)
	store, marks := new(locked), new(locked)
	plane := &scripted{map[string]*client.Response{}, make(chan *client.Response, 10)}
	for i, text := range []string{
		clusterText("pay", "pay", "mesh"), policyText("mesh", 5, pushedText), endpointsText("pay", "10.0.0.1:8443"),
		listenerText("out", "15001", "routes"), routesText("routes", "pay"),
	} {
		r := load(t, "1", text)[0]
		plane.has[r.Type] = &client.Response{
			Type: r.Type, Nonce: string(rune('a' + i)), Version: "1",
			Items: []protocol.Item{{Name: r.Name, Version: "1", HasBody: true, Type: r.Type, Body: r.Body}},
		}
	}
	complete := func(s agent.Status) bool {
		return s.Types[resource.Route].Resources == 1 && s.Types[resource.Listener].Resources == 1 && len(s.Warming) == 0 && len(s.Policies) == 1
	}
	const shape = "out>pay pay=10.0.0.1:8443,/xds:mesh"
	first := newBench(t, limitsText, agent.Options{Store: marks})
	run(first, plane, store, complete)
	first.want(shape)

	second := newBench(t, limitsText, agent.Options{Store: marks})
	run(second, &scripted{}, store, complete)
	second.want(shape)
	if err := second.offer("2", policyText("mesh", 4, pushedText)); err == nil {
		t.Error("an older policy was taken")
	}

	// Limits that are narrower by then hold for what was kept as well.
	narrow := newBench(t, `{floor: floor.yaml, policies: [mesh], targets: [{name: pay, to: ["10.0.0.9:8443"]}], listeners: [{address: "127.0.0.1:15001", clients: plain, to: [pay]}]}`, agent.Options{Store: marks})
	run(narrow, &scripted{}, store, func(s agent.Status) bool {
		return s.Types[resource.AttestationPolicy].Refused > 0 // with which all would be complete
	})
	for _, l := range narrow.proxy.config.Listeners {
		if l.Name != "static" {
			t.Errorf("there is %s", l.Name)
		}
	}
}
