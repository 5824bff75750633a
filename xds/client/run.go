package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// session is one stream, from the attempt to open it until nothing of it is left.
type session struct {
	cancel    context.CancelFunc
	opened    chan struct{}  // closed when there is a stream
	requests  chan *Request  // room for one
	sent      chan struct{}  // room for one: what was in requests is with the transport
	responses chan *Response // no room: what is not taken is not read
	done      chan struct{}  // closed when all goroutines have ended
	err       error          // why; to be read after done
	once      sync.Once      // for err
}

func (s *session) fail(err error) {
	s.once.Do(func() { s.err = err })
	s.cancel()
}

func (c *Client) start(ctx context.Context) *session {
	ctx, cancel := context.WithCancel(ctx)
	s := &session{
		cancel: cancel, opened: make(chan struct{}), requests: make(chan *Request, 1), sent: make(chan struct{}, 1),
		responses: make(chan *Response), done: make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		defer cancel()
		stream, err := c.transport.Open(ctx, c.config.Kind)
		if err != nil {
			s.fail(err)
			return
		}
		close(s.opened)
		var sender sync.WaitGroup
		defer sender.Wait()
		// Sending has a goroutine of its own: a server that writes a large response does not read, and would wait for this side
		// to read while this side waits for it.
		sender.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case r := <-s.requests:
					if err := stream.Send(r); err != nil {
						if err != io.EOF {
							s.fail(err)
						}
						return
					}
					s.sent <- struct{}{}
				}
			}
		})
		for {
			r, err := stream.Recv()
			if err != nil {
				s.fail(err)
				return
			}
			select {
			case s.responses <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return s
}

// loop is the state of Run.
type loop struct {
	*Client
	session *session
	open    bool // there is a stream, and it is in order
	busy    bool // a request is being sent
	stall   time.Time
	began   time.Time // the stream
	retry   time.Time // the next attempt
	tokens  float64
	refill  time.Time
	renew   bool      // the stream is ended in favour of the next one
	renewed time.Time // the last time
	unsaved bool
	save    time.Time // when to
	saving  chan error
	count   time.Time // when to ask for counts
}

// Run keeps a stream to the control plane and calls the sink, until ctx ends. It can be called once. Subscriptions that are there
// from the start are best made before.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("a client runs once")
	}
	c.running = true
	c.status.Since = time.Now()
	c.mu.Unlock()
	l := &loop{Client: c, tokens: float64(c.config.Burst), refill: time.Now()}
	defer l.end()
	l.load()
	for ctx.Err() == nil {
		l.step(ctx)
	}
	return ctx.Err()
}

// end waits for all goroutines, and keeps what was not kept yet.
func (l *loop) end() {
	if l.session != nil {
		l.session.cancel()
		<-l.session.done
		l.closed(nil)
	}
	if l.saving != nil {
		l.saved(<-l.saving)
	}
	if l.unsaved {
		l.keep()
		l.saved(<-l.saving)
	}
}

// step does what there is to do and then waits until there is something again.
func (l *loop) step(ctx context.Context) {
	now := time.Now()
	l.settle(now)
	if l.session == nil && !l.retry.After(now) {
		l.session = l.start(ctx)
		l.mu.Lock()
		l.status.Next = time.Time{}
		l.mu.Unlock()
	}
	if l.unsaved && l.saving == nil && !l.save.After(now) {
		l.keep()
	}
	counts := l.counted(now)
	l.mu.Lock()
	if counts != nil {
		l.machine.Report(*counts)
	}
	if l.open && !l.busy {
		if r := l.machine.Next(now); r != nil {
			l.session.requests <- r
			l.busy, l.stall = true, now.Add(l.config.Stall)
		}
	}
	until := l.machine.Deadline(now)
	adrift := l.machine.Adrift()
	full := l.machine.Full()
	l.mu.Unlock()
	if l.busy && !l.stall.After(now) {
		l.hangUp(fmt.Errorf("a request could not be sent for %v", l.config.Stall))
	}

	if next := l.renewed.Add(l.config.Backoff.Most); adrift && l.open && !next.After(now) {
		l.renew, l.renewed = true, now
		l.hangUp(errAdrift)
	} else if adrift {
		until = first(until, next)
	}

	var opened, done, sent chan struct{}
	var responses chan *Response
	if s := l.session; s != nil {
		done = s.done
		if l.open {
			sent = s.sent
			if l.tokens = min(float64(l.config.Burst), l.tokens+now.Sub(l.refill).Seconds()*l.config.Rate); l.tokens >= 1 && !full {
				responses = s.responses
			} else if !full {
				until = first(until, now.Add(time.Duration(math.Ceil((1-l.tokens)/l.config.Rate*float64(time.Second)))))
			}
			l.refill = now
			if l.busy {
				until = first(until, l.stall)
			}
		} else {
			opened = s.opened
		}
	} else {
		until = first(until, l.retry)
	}
	if l.unsaved && l.saving == nil {
		until = first(until, l.save)
	}
	if l.open {
		until = first(until, l.count)
	}
	var alarm <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(until.Sub(now))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
	case <-l.wake:
	case <-alarm:
	case err := <-l.saving:
		l.saved(err)
	case <-sent:
		l.busy = false
	case <-opened:
		if l.session.broken() {
			return // it is about to be done
		}
		l.open, l.began, l.busy = true, now, false
		l.mu.Lock()
		l.machine.Opened()
		l.status.Since = time.Now()
		l.mu.Unlock()
	case <-done:
		l.closed(l.session.err)
	case r := <-responses:
		l.tokens--
		l.receive(r)
	}
}

// counted asks for counts, where that is due: nil where it is not.
func (l *loop) counted(now time.Time) *Counts {
	if l.config.Counts == nil || !l.open || l.count.After(now) {
		return nil
	}
	l.count = now.Add(l.config.CountsEvery)
	c := l.config.Counts()
	return &c
}

// first is the earlier one of two times of which zero is never.
func first(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// broken reports whether the session has failed, or was given up.
func (s *session) broken() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// settle hands on what comes of no response.
func (l *loop) settle(now time.Time) {
	for {
		l.mu.Lock()
		u := l.machine.Due(now)
		l.mu.Unlock()
		if u == nil {
			break
		}
		l.judge(u)
	}
	for {
		l.mu.Lock()
		typ, names := l.machine.Missing(now)
		l.mu.Unlock()
		if typ == "" {
			return
		}
		l.missing(typ, names)
	}
}

func (l *loop) receive(r *Response) {
	l.mu.Lock()
	u, err := l.machine.Receive(time.Now(), r)
	l.mu.Unlock()
	if err != nil {
		l.hangUp(err)
		return
	}
	if u != nil {
		l.judge(u)
	}
}

// judge asks the sink and carries out what it says.
func (l *loop) judge(u *Update) {
	err := l.offer(u)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.machine.Judged(time.Now(), err)
	var r *Rejection
	if err == nil || errors.As(err, &r) && r.OthersTaken || u.Cause == protocol.Expired {
		if l.config.Store != nil && u.Cause != protocol.Restored && !l.unsaved {
			l.unsaved, l.save = true, time.Now().Add(l.config.SaveAfter)
		}
	}
}

// offer asks the sink. A panic is a refusal: what a control plane sends must not end a proxy.
func (l *loop) offer(u *Update) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &attest.Error{Code: attest.CodeInternal, Subject: u.Type, Got: "a panic while the update was judged"}
		}
	}()
	return l.sink.Offer(u)
}

func (l *loop) missing(typ string, names []string) {
	defer func() { _ = recover() }() // as in offer; nothing hangs on it
	l.sink.Missing(typ, names)
}

// errAdrift ends a stream after a refusal, so that the next one begins with what is really held.
var errAdrift = errors.New("a new stream was begun, since the control plane takes what was refused for known")

// hangUp gives the session up. It is done when its goroutines are.
func (l *loop) hangUp(err error) {
	if !l.open {
		return
	}
	l.session.fail(err)
	l.open = false
	l.session.opened = nil // it is closed, and would pass for a stream once more
	l.mu.Lock()
	l.machine.Closed()
	l.mu.Unlock()
}

// closed takes note of the end of the session and sets the time of the next attempt.
func (l *loop) closed(err error) {
	now := time.Now()
	lived := time.Duration(0)
	if !l.began.IsZero() {
		lived = now.Sub(l.began)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		l.machine.Closed()
	}
	l.session, l.open, l.busy, l.began = nil, false, false, time.Time{}
	st := &l.status
	if lived > 0 {
		st.Since = now
	}
	if lived >= l.config.Backoff.Most {
		st.Attempts = 0
	}
	if err != nil {
		st.LastError, st.LastErrorT = err.Error(), now
	}
	if l.renew {
		l.renew, l.retry = false, now
		return
	}
	most := l.config.Backoff.Most
	if n := st.Attempts; n < 30 && l.config.Backoff.First<<n < most {
		most = l.config.Backoff.First << n
	}
	st.Attempts++
	l.retry = now.Add(max(time.Duration(l.config.Random()*float64(most)), l.config.Backoff.First/10))
	st.Next = l.retry
}

// load offers what was kept. It is put down here, and settle offers it.
func (l *loop) load() {
	if l.config.Store == nil {
		return
	}
	raw, err := l.config.Store.Load()
	var all []protocol.Kept
	if err == nil && len(raw) > 0 {
		all, err = decode(raw, l.machine.Limits)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.status.StoreError = err.Error()
		return
	}
	l.machine.Restore(all)
}

// keep saves what is accepted, in a goroutine.
func (l *loop) keep() {
	l.mu.Lock()
	all := l.machine.Keep()
	l.mu.Unlock()
	l.unsaved = false
	l.saving = make(chan error, 1)
	saving := l.saving
	go func() { saving <- l.config.Store.Save(encode(l.config.stored(all))) }()
}

// stored is what is kept of all.
func (c *Config) stored(all []protocol.Kept) []protocol.Kept {
	for i := range all {
		all[i].Resources = slices.DeleteFunc(all[i].Resources, func(r resource.Resource) bool { return !c.Stored(&r) })
	}
	return slices.DeleteFunc(all, func(k protocol.Kept) bool { return len(k.Resources) == 0 })
}

func (l *loop) saved(err error) {
	l.saving = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.status.Saved, l.status.StoreError = time.Now(), ""
		return
	}
	l.status.StoreError = err.Error()
	if !l.unsaved {
		l.unsaved, l.save = true, time.Now().Add(30*l.config.SaveAfter)
	}
}
