package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
)

// relyingParty verifies the simulated machine that jurat runs on, by the policy that is proposed for it.
func relyingParty(ctx context.Context, tee string) (*ratls.RelyingParty, error) {
	machine, err := sim.Open(tee, "", time.Now)
	if err != nil {
		return nil, err
	}
	ev, err := machine.Attest(ctx, attest.ReportData{1})
	if err != nil {
		return nil, err
	}
	verifier := sim.NewVerifier([]string{machine.Root()})
	claims, err := verifier.Verify(ctx, ev, machine.Endorser(), time.Now())
	if err != nil {
		return nil, err
	}
	text, err := policy.Propose(claims, attest.LevelSession, "bench")
	if err != nil {
		return nil, err
	}
	p, err := policy.Parse("bench.yaml", text, policy.NoFiles)
	if err != nil {
		return nil, err
	}
	return ratls.NewRelyingParty(attest.NewAppraiser(machine.Endorser(), attest.NewMemo(verifier)), p, time.Now), nil
}

func (b *bench) dialAttested(ctx context.Context, addr string, protocols ...string) (dialer, error) {
	rp, err := relyingParty(ctx, b.tee)
	if err != nil {
		return nil, err
	}
	connector := ratls.NewConnector(rp, protocols...)
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := connector.Dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		if r := conn.Result(); r == nil || !r.Affirmed() || conn.Presented().Session == nil {
			return nil, errors.Join(errors.New("not attested for the session"), conn.Close())
		}
		return conn, nil
	}, nil
}

// pairs is how often attested and plain connections take turns in a measurement.
const pairs = 4

// established makes connections, and answers the work that is measured on them.
type established func() (work func() (float64, error), err error)

// beside lets connections of both sorts take turns, and answers "cpu" of the attested ones, "plain", and their "ratio".
func (p *peer) beside(attested, plain established) (sample, error) {
	var costs [2][]float64
	for i := range 2 * pairs {
		which := (i + 1) / 2 % 2 // each follows itself as often as the other
		work, err := [2]established{attested, plain}[which]()
		if err != nil {
			return nil, err
		}
		x, err := p.during(work)
		if err != nil {
			return nil, err
		}
		costs[which] = append(costs[which], x["cpu"])
	}
	a, b := mean(costs[0]), mean(costs[1])
	return sample{"cpu": a, "plain": b, "ratio": a / b}, nil
}

// attestedH1 is 64 connections with requests at a rate that clients of either sort can hold. Unbounded, the plain ones would ask more
// often, being cheaper themselves, and what comes more densely costs a proxy less.
func (b *bench) attestedH1(ctx context.Context, p *peer) (sample, error) {
	d, err := b.dialAttested(ctx, p.front, "http/1.1")
	if err != nil {
		return nil, err
	}
	attested, err := d.clients(ctx, 64)
	if err != nil {
		return nil, err
	}
	defer closeAll(attested)
	defer context.AfterFunc(ctx, func() { closeAll(attested) })()
	plain, err := dialTLS(p.front, "http/1.1").clients(ctx, 64)
	if err != nil {
		return nil, err
	}
	defer closeAll(plain)
	defer context.AfterFunc(ctx, func() { closeAll(plain) })()
	const while = 200 * time.Millisecond
	if _, err := loop(ctx, plain, while); err != nil { // establishes what is established with the first request
		return nil, err
	}
	most, err := loop(ctx, attested, while)
	if err != nil {
		return nil, err
	}
	rate := int(0.7 * most / while.Seconds())
	n := int(float64(rate) * b.span.Seconds())
	load := func(all []*client) established {
		return func() (func() (float64, error), error) {
			return func() (float64, error) {
				_, err := openLoop(all, rate, n)
				return float64(n), err
			}, nil
		}
	}
	return p.beside(load(attested), load(plain))
}

// attestedTCP is bulk out of the proxy, over a connection of each sort in turn: twice as much as elsewhere, so that what a proxy may still
// have to do for a new connection weighs little.
func (b *bench) attestedTCP(ctx context.Context, p *peer) (sample, error) {
	d, err := b.dialAttested(ctx, p.frontTCP)
	if err != nil {
		return nil, err
	}
	n := 2 * b.bytes
	load := func(d dialer) established {
		return func() (func() (float64, error), error) {
			c, err := d.client(ctx)
			if err != nil {
				return nil, err
			}
			return func() (float64, error) {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				return float64(n) / 1e6, order(c.Conn, 'S', n)
			}, nil
		}
	}
	return p.beside(load(d), load(dialTLS(p.frontTCP)))
}
