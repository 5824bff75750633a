package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Options tune a Control. Zero values are the defaults.
type Options struct {
	Check   Check            // beside what is checked in any case; nil for nothing
	Now     func() time.Time // default time.Now
	Poll    time.Duration    // how often the directory is looked at, default 200 ms
	Rejudge time.Duration    // how often those who are connected are judged again although nothing changed, default 30 s: evidence ages
	Log     *slog.Logger     // default none
}

// Control serves a directory. It is safe for concurrent use.
type Control struct {
	dir     string
	decode  Decode
	require attest.Policy
	opts    Options
	store   *store
	began   time.Time

	changing sync.Mutex // one change at a time
	state    atomic.Pointer[state]
	problem  atomic.Pointer[problem]

	mu       sync.Mutex
	sessions map[*session]struct{}
	refused  []Refused // the last ones
	closed   bool
}

// problem is why the directory is not what is served.
type problem struct {
	err   error
	since time.Time
}

// Open opens the state in stateDir, or makes it, and takes the directory. Where the directory is bad, what was accepted last is
// served, and Problem says why; where there is nothing like that, it is an error. require is the policy that every proxy has to meet
// beside the one of its group: that of the handshake.
func Open(dir, stateDir string, decode Decode, require attest.Policy, opts Options) (*Control, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Poll <= 0 {
		opts.Poll = 200 * time.Millisecond
	}
	if opts.Rejudge <= 0 {
		opts.Rejudge = 30 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if require == nil {
		return nil, &attest.Error{Code: attest.CodeConfigMissing, Check: "xds.control", Want: "a policy that proxies have to meet"}
	}
	s, err := openStore(stateDir)
	if err != nil {
		return nil, err
	}
	c := &Control{dir: dir, decode: decode, require: require, opts: opts, store: s, began: opts.Now(), sessions: map[*session]struct{}{}}
	if err := c.recover(); err != nil {
		s.close()
		return nil, err
	}
	return c, nil
}

// recover serves what was accepted last, and then takes the directory.
func (c *Control) recover() error {
	kept, err := c.store.load()
	if err != nil {
		return err
	}
	if kept != nil {
		c.opts.Log.Info("state", "serial", kept.Serial, "digest", kept.Digest, "history", c.store.digest)
	}
	from, err := versionsOf(kept)
	if err != nil {
		return brokenState(c.store.dir, err)
	}
	var old error
	if kept != nil {
		d, err := parse(kept.Files, c.decode, c.opts.Check)
		if err == nil {
			var st *state
			if st, _, err = build(d, from, 0); err == nil && st.serial == from.serial {
				c.state.Store(st)
			} else if err == nil {
				err = errors.New("another version of this program makes something else of it")
			}
		}
		old = err // the directory may be one that this version of the program takes
	}
	if c.state.Load() == nil {
		from.digest = "" // whatever the directory holds is a change
		c.state.Store(from)
	}
	err = c.Reload("start")
	if len(c.state.Load().groups) == 0 {
		return errors.Join(err, old)
	}
	return nil
}

// Close ends every stream and lets go of the state.
func (c *Control) Close() {
	c.mu.Lock()
	c.closed = true
	all := slices.Collect(maps.Keys(c.sessions))
	c.mu.Unlock()
	for _, ss := range all {
		ss.end(&attested.Status{Code: attested.Unavailable, Message: "the control plane ends"})
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	c.store.close()
}

// Reload takes the directory as it is now. The error says what is wrong with it; nothing has changed then. who is what the history
// says of who made the change.
func (c *Control) Reload(who string) error {
	files, err := ReadDirectory(c.dir)
	if err != nil {
		c.failed(err)
		return err
	}
	return c.Apply(files, who)
}

// Apply takes files as the directory holds them.
func (c *Control) Apply(files Files, who string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.apply(files, who)
	if err != nil {
		c.failed(err)
		return err
	}
	c.problem.Store(nil)
	return nil
}

func (c *Control) failed(err error) {
	old := c.problem.Load()
	p := &problem{err, c.opts.Now()}
	if old != nil {
		p.since = old.since
	}
	c.problem.Store(p)
	if old == nil || old.err.Error() != err.Error() {
		c.opts.Log.Error("the directory is not taken", "code", string(attest.CodeOf(err)), "error", err.Error())
	}
}

func (c *Control) apply(files Files, who string) error {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return errors.New("the control plane ends")
	}
	from := c.state.Load()
	if files.Digest() == from.digest {
		return nil
	}
	d, err := parse(files, c.decode, c.opts.Check)
	if err != nil {
		return err
	}
	now := c.opts.Now()
	next, changes, err := build(d, from, uint64(max(now.UnixMicro(), 1)))
	if err != nil {
		return err
	}
	line := &Change{Serial: next.serial, Time: now.UTC(), Who: resource.Printable(who, 256), Digest: next.digest, Resource: changes}
	if len(changes) > maxListed {
		line.Resource, line.More = changes[:maxListed], len(changes)-maxListed
	}
	if err := c.store.add(keepState(next, files), line); err != nil {
		return err
	}
	c.state.Store(next)
	if from.replaced != nil {
		close(from.replaced)
	}
	c.opts.Log.Info("change", "serial", next.serial, "resources", len(changes), "who", line.Who, "digest", next.digest, "history", c.store.digest)
	c.sweep(func(ss *session) bool { return ss.sending.Load() }) // the others judge themselves
	return nil
}

// Problem is why the directory is not what is served; nil where it is.
func (c *Control) Problem() error {
	if p := c.problem.Load(); p != nil {
		return p.err
	}
	return nil
}

// Run watches the directory, and judges those who are connected again from time to time, until ctx is done.
func (c *Control) Run(ctx context.Context) {
	poll := time.NewTicker(c.opts.Poll)
	defer poll.Stop()
	rejudge := time.NewTicker(c.opts.Rejudge)
	defer rejudge.Stop()
	w := &watcher{dir: c.dir}
	for {
		select {
		case <-ctx.Done():
			return
		case <-rejudge.C:
			c.sweep(func(*session) bool { return true })
		case <-poll.C:
			files, changed, err := w.look()
			switch {
			case err != nil:
				c.failed(err)
			case changed:
				_ = c.Apply(files, "directory "+c.dir) // said by failed
			}
		}
	}
}

// sweep judges sessions again, and ends those that are refused.
func (c *Control) sweep(which func(*session) bool) {
	c.mu.Lock()
	all := slices.Collect(maps.Keys(c.sessions))
	c.mu.Unlock()
	st := c.state.Load()
	for _, ss := range all {
		if which(ss) {
			if _, err := c.admit(ss.s.Peer(), st); err != nil {
				ss.end(err)
			}
		}
	}
}

// admit finds the group of a peer and judges it. The error is what the peer is told.
func (c *Control) admit(p *attested.Peer, st *state) (*group, error) {
	for _, g := range st.groups {
		if !g.matches(p) {
			continue
		}
		if g.Local != "" {
			return g, nil
		}
		r, now := p.Result(), c.opts.Now()
		if !r.Affirmed() {
			return nil, refusal(r, "the evidence")
		}
		for _, with := range []struct {
			name   string
			policy attest.Policy
		}{{"the policy of this control plane", c.require}, {"the policy of group " + g.Name, g.require}} {
			if judged := r.Rejudge(with.policy, now); !judged.Affirmed() {
				return nil, refusal(judged, with.name)
			}
		}
		return g, nil
	}
	return nil, &attested.Status{Code: attested.PermissionDenied, Message: "no group is for a proxy of this evidence"}
}

func refusal(r *attest.Result, by string) error {
	return &attested.Status{Code: attested.PermissionDenied, Message: fmt.Sprintf("%s refuses: %s", by, resource.Printable(errorText(r), 512))}
}

func errorText(r *attest.Result) string {
	if r == nil || r.Err() == nil {
		return "it is not affirmed"
	}
	return r.Err().Error()
}
