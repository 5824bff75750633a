package batch_test

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/batch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hardware is a TEE whose evidence is the report data itself. It takes its time, serves one call at a time, and says so
// when there is a second.
type hardware struct {
	mu       sync.Mutex
	takes    time.Duration
	fail     func(ctx context.Context, call int) error // nil: never
	calls    int
	begun    []time.Time
	inFlight int
	overlap  bool
}

func (h *hardware) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	h.mu.Lock()
	h.calls++
	call, takes, fail := h.calls, h.takes, h.fail
	h.begun = append(h.begun, time.Now())
	h.inFlight++
	h.overlap = h.overlap || h.inFlight > 1
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.inFlight--
	}()
	if takes > 0 {
		time.Sleep(takes)
	}
	if fail != nil {
		if err := fail(ctx, call); err != nil {
			return nil, err
		}
	}
	return &attest.Evidence{Format: "test", Raw: binary.BigEndian.AppendUint32(data[:], uint32(call))}, nil
}

func (h *hardware) set(fail func(context.Context, int) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = fail
}

func (h *hardware) quotes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

func (h *hardware) overlapped() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.overlap
}

func bind(size uint64, root merkle.Hash) attest.ReportData {
	return sha512.Sum512(append(binary.BigEndian.AppendUint64([]byte("test"), size), root[:]...))
}

func leaf(n int) merkle.Hash {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte{0}, uint64(n)))
}

// call is one caller of Attest, in a goroutine of its own.
type call struct {
	n      int
	peer   string
	ticket *batch.Ticket
	err    error
	took   time.Duration
	done   chan struct{} // closed when ticket, err and took are what Attest answered
	cancel context.CancelCauseFunc
}

func (c *call) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// bench is a Batcher over hardware, in a bubble of fake time.
type bench struct {
	*batch.Batcher
	t    interface{ Fatalf(string, ...any) }
	hw   *hardware
	next int
}

// bubble runs f in fake time; every goroutine has to be gone after it.
func bubble(t *testing.T, hw *hardware, opts batch.Options, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{Batcher: batch.New(hw, bind, opts), t: t, hw: hw}
		f(t, b)
		b.Close()
		b.pass(2 * time.Hour) // for hardware that hangs
		if hw.overlapped() {
			t.Fatal("two quotes in flight")
		}
	})
}

// start calls Attest and returns when everybody waits again.
func (b *bench) start(peer string, urgency batch.Urgency) *call {
	c := b.startIn(context.Background(), peer, urgency)
	synctest.Wait()
	return c
}

func (b *bench) startIn(ctx context.Context, peer string, urgency batch.Urgency) *call {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &call{n: b.next, peer: peer, cancel: cancel, done: make(chan struct{})}
	b.next++
	began := time.Now()
	go func() {
		c.ticket, c.err = b.Attest(ctx, peer, leaf(c.n), urgency)
		c.took = time.Since(began)
		close(c.done)
		cancel(nil)
	}()
	return c
}

// pass lets time pass.
func (b *bench) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// served checks that c has its ticket, and answers in which call of the attester.
func (b *bench) served(c *call) int {
	if !c.over() || c.err != nil {
		b.t.Fatalf("leaf %d of %s is not served: over %t, %v", c.n, c.peer, c.over(), c.err)
	}
	call, err := check(c.ticket, leaf(c.n))
	if err != nil {
		b.t.Fatalf("leaf %d: %v", c.n, err)
	}
	return call
}

func check(k *batch.Ticket, l merkle.Hash) (call int, err error) {
	root, ok := merkle.Root(l, k.Index, k.Size, k.Proof)
	data := bind(k.Size, root)
	if !ok || string(data[:]) != string(k.Evidence.Raw[:64]) {
		return 0, fmt.Errorf("the hardware did not sign what %d of %d leads to", k.Index, k.Size)
	}
	return int(binary.BigEndian.Uint32(k.Evidence.Raw[64:])), nil
}

func (b *bench) waits(calls ...*call) {
	for _, c := range calls {
		if c.over() {
			b.t.Fatalf("leaf %d of %s does not wait: %v", c.n, c.peer, c.err)
		}
	}
}

// refused checks that c failed with the code and, where one is given, the cause.
func (b *bench) refused(c *call, code attest.Code, cause error) {
	if !c.over() || c.ticket != nil || attest.CodeOf(c.err) != code || cause != nil && !errors.Is(c.err, cause) {
		b.t.Fatalf("leaf %d of %s: over %t, %v; want %s, %v", c.n, c.peer, c.over(), c.err, code, cause)
	}
}
