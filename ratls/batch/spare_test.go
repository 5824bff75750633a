package batch_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/batch"
)

// Who has no session waits for company, rides along with sessions, and takes no place from them.
func TestSpareLeavesTakeWhatIsLeft(t *testing.T) {
	bubble(t, &hardware{takes: 100 * time.Millisecond}, batch.Options{MaxBatch: 4}, func(t *testing.T, b *bench) {
		alone := b.start("s", batch.Spare)
		b.pass(900 * time.Millisecond)
		b.waits(alone)
		if b.hw.quotes() != 0 {
			t.Fatal("a quote for a stranger alone began at once")
		}
		first := b.start("a", batch.Now)
		b.pass(100 * time.Millisecond)
		if b.served(first) != 1 || b.served(alone) != 1 {
			t.Fatal("it did not ride along")
		}

		b.start("a", batch.Now)
		spare := b.start("s", batch.Spare)
		var sessions []*call
		for i := range 4 {
			sessions = append(sessions, b.start(strconv.Itoa(i), batch.Now))
		}
		b.pass(200 * time.Millisecond)
		for _, c := range sessions {
			if b.served(c) != 3 {
				t.Fatalf("%+v", c)
			}
		}
		b.waits(spare)
	})
}

func TestSpareQuotesLeaveTheTEEToSessions(t *testing.T) {
	bubble(t, &hardware{takes: time.Second}, batch.Options{}, func(t *testing.T, b *bench) {
		one := b.start("s", batch.Spare)
		b.pass(2 * time.Second) // its patience and its quote
		if b.served(one) != 1 {
			t.Fatalf("%+v", one)
		}
		two := b.start("s", batch.Spare)
		b.pass(9*time.Second - time.Millisecond)
		if b.waits(two); b.hw.quotes() != 1 {
			t.Fatal("the TEE has no rest from strangers")
		}
		b.pass(time.Millisecond + time.Second)
		if b.served(two) != 2 {
			t.Fatalf("%+v", two)
		}
		// A session does not wait for that.
		session := b.start("a", batch.Now)
		b.pass(time.Second)
		if b.served(session) != 3 {
			t.Fatalf("%+v", session)
		}
		// And a quote for a session is none for strangers.
		three := b.start("s", batch.Spare)
		b.pass(9 * time.Second)
		if b.served(three) != 4 {
			t.Fatalf("%+v", three)
		}
	})
}

func TestSpareLeavesAreBounded(t *testing.T) {
	bubble(t, &hardware{takes: time.Second}, batch.Options{SpareQueue: 32, Queue: 1}, func(t *testing.T, b *bench) {
		for range 2 {
			b.start("s", batch.Spare)
		}
		third := b.start("s", batch.Spare)
		b.pass(time.Millisecond)
		if attest.CodeOf(third.err) != attest.CodeCrowded {
			t.Fatalf("%+v", third)
		}
		for i := range 40 {
			b.start(strconv.Itoa(i), batch.Spare)
		}
		if s := b.Stats(); s.Waiting != 32 {
			t.Fatalf("%+v", s)
		}
		session := b.start("a", batch.Patient) // which has its own queue
		b.pass(3 * time.Second)
		if b.served(session) == 0 {
			t.Fatalf("%+v", session)
		}
	})
}

func TestSpareLeavesFailWithTheTEE(t *testing.T) {
	hw := &hardware{takes: time.Second}
	bubble(t, hw, batch.Options{Failures: 1}, func(t *testing.T, b *bench) {
		hw.set(func(context.Context, int) error { return errors.New("broken") })
		session, spare := b.start("a", batch.Now), b.start("s", batch.Spare)
		b.pass(time.Second)
		if attest.CodeOf(session.err) != attest.CodeAttesterFailed || attest.CodeOf(spare.err) != attest.CodeAttesterBroken {
			t.Fatalf("%v, %v", session.err, spare.err)
		}
	})
}
