package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// arm sets the time at which the other end is asked again.
func (c *Conn) arm() {
	c.smu.Lock()
	defer c.smu.Unlock()
	c.asking = false
	c.rearm()
}

// rearm sets that time anew, unless the other end is being asked. The caller holds smu.
func (c *Conn) rearm() {
	pace := c.opts.pace()
	if pace <= 0 || c.verifier == nil || c.asking || c.life.Err() != nil {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(max(pace-age(c.Result()), 0), c.reattest) // a reconnect makes evidence no younger
}

// Settle puts the Result is in the place of was, on the same evidence: what is demanded of the other end has changed, and is has
// come of judging it again. It answers false where was is not the Result any more.
func (c *Conn) Settle(was, is *attest.Result) bool {
	f := c.found.Load()
	if f == nil || f.result != was || !c.found.CompareAndSwap(f, &finding{is, f.presented}) {
		return false
	}
	c.smu.Lock()
	defer c.smu.Unlock()
	c.rearm()
	return true
}

// Refuse ends the connection because its other end, which was affirmed, is so no more, and tells it the code of why. Nothing of
// the application moves either way from then on. It may wait for a moment where the transport does.
func (c *Conn) Refuse(r *attest.Result) { _ = c.fail(&Refused{Result: r, Presented: c.Presented()}) }

// RefuseSoon is Refuse for who can't wait: nothing of the application moves from when it returns on, and the rest follows.
func (c *Conn) RefuseSoon(r *attest.Result) {
	var err error = &Refused{Result: r, Presented: c.Presented()}
	if c.failure.CompareAndSwap(nil, &err) {
		go c.giveUp(err)
	}
}

// age is that of the evidence behind a Result.
func age(r *attest.Result) time.Duration { return r.Time().Sub(r.EvidenceTime()) }

func (c *Conn) schedule(after time.Duration, then func()) {
	c.smu.Lock()
	defer c.smu.Unlock()
	if c.life.Err() == nil {
		c.timer = time.AfterFunc(after, then)
	}
}

// reattest asks the other end for evidence.
func (c *Conn) reattest() {
	c.smu.Lock()
	busy := c.asking // the time was set anew just when it had come
	if c.asking = true; !busy && c.timer != nil {
		c.timer.Stop() // likewise: one that is left behind would ask again and again beside the next one
	}
	c.smu.Unlock()
	if busy {
		return
	}
	q, err := c.ask()
	if err != nil {
		_ = c.fail(malformed("no request", err))
		return
	}
	c.smu.Lock()
	c.open = q
	c.smu.Unlock()
	c.schedule(c.opts.Answer, func() {
		_ = c.fail(&attest.Error{Code: attest.CodeReattest, Check: "binding.reattest", Got: "nothing for " + c.opts.Answer.String()})
	})
	c.send(kindRequest, q.raw)
}

// examine takes the answer to the one open request. The application goes on meanwhile, under the verdict before.
func (c *Conn) examine(raw []byte) error {
	c.smu.Lock()
	q := c.open
	c.open = nil
	c.smu.Unlock()
	if q == nil {
		return malformed("an authenticator that nobody asked for", nil)
	}
	go c.contain(func() {
		ctx, cancel := context.WithTimeout(c.life, c.opts.Answer)
		defer cancel()
		err := c.appraise(ctx, c.role.Other(), q, raw)
		if again, ok := c.verifier.(Rechecker); ok && err == nil {
			if r := again.Recheck(ctx); r != nil {
				err = &Refused{Result: r, Presented: c.Presented()}
			}
		}
		var refused *Refused
		switch {
		case errors.As(err, &refused):
			c.observe(refused.Result)
			_ = c.fail(err)
		case err != nil:
			_ = c.fail(err)
		default:
			c.observe(c.Result())
			c.stopTimer()
			c.arm()
		}
	})
	return nil
}

func (c *Conn) stopTimer() {
	c.smu.Lock()
	defer c.smu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
}

func (c *Conn) observe(r *attest.Result) {
	if c.opts.OnReattest != nil {
		c.opts.OnReattest(r)
	}
}

// answer makes evidence anew. While the TEE gives none it is tried again: the other end waits as long as it likes, and what
// is open lives on until then.
func (c *Conn) answer(raw []byte) error {
	if c.prover == nil {
		return malformed("a request for evidence at an end that has none", nil)
	}
	asked, err := c.parse(raw)
	if err != nil {
		return err
	}
	c.smu.Lock()
	busy, again := c.answering, asked.challenge == c.answered
	c.answering, c.answered = true, asked.challenge
	c.smu.Unlock()
	switch {
	case busy:
		return malformed("a request while another is open", nil)
	case again:
		return malformed("the same request again", nil)
	}
	go c.contain(func() {
		body, err := c.authenticate(c.life, asked, true)
		for err != nil && c.life.Err() == nil {
			select {
			case <-c.life.Done():
			case <-time.After(retryQuote):
				body, err = c.authenticate(c.life, asked, true)
			}
		}
		if err != nil {
			return
		}
		c.wmu.Lock()
		defer c.wmu.Unlock()
		c.smu.Lock()
		c.answering = false // not before it is its turn: answers to an end that does not read must not pile up
		c.smu.Unlock()
		c.write(kindAuthenticator, body)
	})
	return nil
}

// retryQuote is the pause after a quote that failed.
const retryQuote = time.Second

// contain keeps a panic from ending the process: it ends the connection.
func (c *Conn) contain(f func()) {
	defer func() {
		if p := recover(); p != nil {
			_ = c.fail(&attest.Error{Code: attest.CodeInternal, Check: "binding.session", Err: fmt.Errorf("panic: %v", p)})
		}
	}()
	f()
}
