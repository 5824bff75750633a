package sim

import (
	"context"
	"strconv"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Host is what every simulated machine can be told, whatever its TEE.
type Host struct {
	// Dir keeps the root and the machine's keys, shared by every machine with the same Dir. Empty: they live in memory only.
	Dir string
	// QuoteTime is how long one piece of Evidence takes.
	QuoteTime time.Duration
	// Serial makes the machine work on one piece of Evidence at a time, as firmware does.
	Serial bool
	// Clock is how far the machine's clock, and its vendor's, is off.
	Clock time.Duration
	// Now is the clock that dates what is made; nil: time.Now.
	Now func() time.Time
}

const hostSyntax = "dir=PATH, serial=on|off, quote-time=39ms, clock=-72h (how far it is off)"

// set takes one key of the spec. It answers what the key wants; nothing when the key is another's.
func (h *Host) set(key, value string) (want string, err error) {
	switch key {
	case "dir":
		h.Dir = value
		return "a path", nil
	case "serial":
		h.Serial, err = onOff(value)
		return "on or off", err
	case "quote-time":
		h.QuoteTime, err = time.ParseDuration(value)
		return "a duration such as 39ms", err
	case "clock":
		h.Clock, err = time.ParseDuration(value)
		return "a duration such as -72h", err
	}
	return "", nil
}

// complete fills in defaults and checks what a caller may have got wrong.
func (h *Host) complete() error {
	if h.QuoteTime < 0 {
		return usage("quote-time "+h.QuoteTime.String(), "a duration of zero or more")
	}
	if h.Now == nil {
		h.Now = time.Now
	}
	if off, now := h.Clock, h.Now; off != 0 {
		h.Clock, h.Now = 0, func() time.Time { return now().Add(off) }
	}
	return nil
}

func onOff(s string) (bool, error) {
	switch s {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, strconv.ErrSyntax
}

// pace makes a machine as slow as its host says.
type pace struct {
	time time.Duration
	turn chan struct{} // holds one token when the machine is serial
}

func newPace(h *Host) *pace {
	p := &pace{time: h.QuoteTime}
	if h.Serial {
		p.turn = make(chan struct{}, 1)
	}
	return p
}

// attest makes Evidence over data in the machine's turn, and takes the time that it takes.
func (p *pace) attest(ctx context.Context, data attest.ReportData, evidence func() (*attest.Evidence, error)) (*attest.Evidence, error) {
	if data.IsZero() {
		return nil, &attest.Error{Code: attest.CodeNoExpectation, Check: "attester", Got: "report data of zeros"}
	}
	err := p.wait(ctx)
	if err == nil {
		var ev *attest.Evidence
		if ev, err = evidence(); err == nil {
			return ev, nil
		}
	}
	return nil, &attest.Error{Code: attest.CodeAttesterFailed, Check: "attester", Err: err}
}

func (p *pace) wait(ctx context.Context) error {
	if p.turn != nil {
		select {
		case p.turn <- struct{}{}:
			defer func() { <-p.turn }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if p.time > 0 {
		timer := time.NewTimer(p.time)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}
