package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/ratls/pins"
)

const (
	defaultWatch = 5 * time.Second
	minWatch     = 50 * time.Millisecond
)

// watchFlag is --watch or --watch=EVERY; zero where it is absent.
type watchFlag time.Duration

// IsBoolFlag lets the flag stand alone.
func (*watchFlag) IsBoolFlag() bool { return true }

func (w *watchFlag) String() string { return time.Duration(*w).String() }

// Set implements flag.Value.
func (w *watchFlag) Set(s string) error {
	if on, err := strconv.ParseBool(s); err == nil {
		*w = 0
		if on {
			*w = watchFlag(defaultWatch)
		}
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < minWatch {
		return fmt.Errorf("a length of time of at least %s", minWatch)
	}
	*w = watchFlag(d)
	return nil
}

// watcher keeps what a child trusts at what its targets show.
type watcher struct {
	app     *app
	keeper  *pins.Keeper
	trust   *childTrust
	changed chan struct{}

	mu    sync.Mutex
	first map[string][][]byte    // leaves from before the first verdict, by address
	said  map[pins.Target]string // what was last said of a target
}

// watch appraises the targets of first, of which those leaves are trusted already, again and again, until the function that it
// answers is called. What is refused is trusted no more from then on; what can't be appraised is as long as its leaf is valid.
func (a *app) watch(rp *relying, t *childTrust, first map[string][][]byte, every time.Duration) (end func()) {
	w := &watcher{app: a, trust: t, changed: make(chan struct{}, 1), first: first, said: map[pins.Target]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	enforcer, place := rp.enforced(ctx)
	connector := ratls.NewConnector(ratls.NewEnforcedParty(place, rp.now), "h2", "http/1.1")
	appraise := func(ctx context.Context, t pins.Target) (*attest.Result, ratls.Presented, error) {
		return appraiseLeaf(ctx, connector, t)
	}
	w.keeper = pins.New(place, appraise, pins.Options{Timeout: rp.timeout, Now: rp.now, Changed: w.change, Told: w.told})
	var targets []pins.Target
	for address := range first {
		name, _, _ := net.SplitHostPort(address) // as targetAddress made it
		targets = append(targets, pins.Target{Address: address, Name: name}, pins.Target{Address: address, Name: name, Successor: true})
	}
	var work sync.WaitGroup
	work.Go(func() { enforcer.Run(ctx) })
	work.Go(func() { w.run(ctx) })
	w.keeper.Aim(targets, every)
	return func() {
		cancel()
		work.Wait()
		w.keeper.Close()
	}
}

// enforced is a place where the policy is in force.
func (r *relying) enforced(ctx context.Context) (*enforce.Enforcer, enforce.Place) {
	appraiser := attest.NewAppraiser(r.endorser, attest.NewMemo(r.judge().Verifiers(r.endorser)...))
	e := enforce.New(func(attest.Stack) *attest.Appraiser { return appraiser }, r.now, func(*enforce.Sweep) {})
	e.Apply(ctx, enforce.Change{Policies: map[string]attest.Policy{"policy": r.policy}, Places: map[string][]string{"exec": {"policy"}}})
	return e, e.Place("exec")
}

func (w *watcher) change() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// run writes what is trusted whenever it has changed.
func (w *watcher) run(ctx context.Context) {
	var was [][]byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		}
		is := w.keeper.Leaves()
		w.mu.Lock()
		for _, leaves := range w.first {
			is = append(is, leaves...)
		}
		w.mu.Unlock()
		if was != nil && slices.EqualFunc(was, is, slices.Equal) {
			continue
		}
		if err := w.trust.write(is); err != nil {
			fmt.Fprintf(w.app.stderr, "jurat: what the command trusts can't be written, and nobody is trusted from now on: %v\n", errors.Join(err, w.trust.withdraw()))
			return
		}
		if was = is; len(is) == 0 {
			was = [][]byte{}
			fmt.Fprintln(w.app.stderr, "jurat: nobody is trusted now: new connections of the command fail")
		}
	}
}

// told says what has become of a target, where it is another thing than before.
func (w *watcher) told(t pins.Target, r *attest.Result, err error) {
	if err == nil {
		err = r.Err()
	}
	what := ""
	if err != nil {
		what = string(attest.CodeOf(err))
	}
	w.mu.Lock()
	if r != nil && !t.Successor {
		delete(w.first, t.Address)
	}
	again := w.said[t] == what
	w.said[t] = what
	w.mu.Unlock()
	w.change()
	subject := printable(t.Address)
	if t.Successor {
		subject += ", of the key that comes next"
	}
	switch {
	case again:
	case err == nil:
		fmt.Fprintf(w.app.stderr, "jurat: %s: affirmed again\n", subject)
	case r != nil:
		fmt.Fprintf(w.app.stderr, "jurat: %s: AFFIRMED NO MORE: %s\n", subject, printable(err.Error()))
	default:
		fmt.Fprintf(w.app.stderr, "jurat: %s: not appraised: %s; its key is trusted as long as its certificate is valid\n", subject, printable(err.Error()))
	}
}

// appraiseLeaf appraises the leaf that a target shows now, or the one that it shows next.
func appraiseLeaf(ctx context.Context, c *ratls.Connector, t pins.Target) (*attest.Result, ratls.Presented, error) {
	if c = c.CertificateOnly(); t.Successor {
		c = c.Successor()
	}
	raw, _, err := ratls.Connect(ctx, t.Address)
	if err != nil {
		return nil, ratls.Presented{}, err
	}
	conn, err := c.Handshake(ctx, raw, t.Name)
	var refusal *ratls.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal.Result, refusal.Presented, nil
	case err != nil:
		return nil, ratls.Presented{}, err
	}
	defer conn.Close()
	return conn.Result(), conn.Presented(), nil
}
