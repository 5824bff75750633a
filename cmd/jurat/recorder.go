package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/evlog"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/ratls"
)

// recorder keeps records of appraisals in a log without ever holding up a connection: what does not fit into its queue is
// dropped and counted, and a peer that shows the same evidence again is not recorded again. A nil recorder keeps nothing.
type recorder struct {
	log   *evlog.Log
	slog  *slog.Logger
	queue chan *record.Record
	done  chan struct{}

	mu      sync.Mutex
	seen    map[string]bool
	dropped int
	closed  bool
}

const (
	recorderQueue = 256
	recorderSeen  = 1 << 14
	commitEvery   = time.Second
)

// recorder opens the log that the flags name; nil when they name none.
func (f *logFlags) recorder(a *app, logger *slog.Logger) (*recorder, error) {
	log, err := f.open(a)
	if log == nil || err != nil {
		return nil, err
	}
	r := &recorder{log: log, slog: logger, queue: make(chan *record.Record, recorderQueue), done: make(chan struct{}), seen: map[string]bool{}}
	go r.run()
	return r, nil
}

type recorderKey struct{}

// recording is an Endorser that notes what it answers for the appraisal that its context belongs to: a record of that
// appraisal can then be replayed.
type recording struct{ attest.Endorser }

// Endorse implements attest.Endorser.
func (r recording) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	if noting, ok := ctx.Value(recorderKey{}).(*record.Recorder); ok {
		return noting.Endorse(ctx, ref)
	}
	return r.Endorser.Endorse(ctx, ref)
}

// watch makes a context whose appraisals note what is fetched for them.
func (r *recorder) watch(ctx context.Context, endorser attest.Endorser) (context.Context, *record.Recorder) {
	if r == nil {
		return ctx, nil
	}
	fetched := record.NewRecorder(endorser)
	return context.WithValue(ctx, recorderKey{}, fetched), fetched
}

// appraised keeps the record of a handshake in which the peer was appraised, whatever came of it.
func (r *recorder) appraised(conn *ratls.Conn, err error, rec *record.Record, fetched *record.Recorder) {
	if r == nil {
		return
	}
	var result *attest.Result
	var refusal *ratls.Refusal
	switch {
	case err == nil && conn.Result() != nil:
		result = conn.Result()
		keepPresented(rec, conn.Presented())
	case errors.As(err, &refusal) && len(refusal.Chain) > 0:
		result = refusal.Result
		keepPresented(rec, refusal.Presented)
	default:
		return // nobody was appraised
	}
	if result.Reconnected() {
		return // the session that it goes back to was recorded
	}
	key := result.EvidenceDigest() + result.PolicyID() + string(result.Code()) + rec.ServerName
	rec.Time, rec.Fetched = result.Time(), fetched.Fetched()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.seen[key] {
		return
	}
	if len(r.seen) >= recorderSeen {
		clear(r.seen)
	}
	select {
	case r.queue <- rec:
		r.seen[key] = true
	default:
		r.dropped++
	}
}

func (r *recorder) run() {
	defer close(r.done)
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	complained := false
	complain := func(err error) {
		if err != nil && !complained { // a full disk would otherwise fill the log of the process too
			complained = true
			r.slog.Error("evidence log", "error", err.Error())
		}
	}
	for {
		select {
		case rec, ok := <-r.queue:
			if !ok {
				return
			}
			raw, err := record.Encode(rec)
			if err == nil {
				_, err = r.log.Append(raw)
			}
			complain(err)
		case <-tick.C:
			complain(r.log.Commit())
			r.mu.Lock()
			dropped := r.dropped
			r.dropped = 0
			r.mu.Unlock()
			if dropped > 0 {
				r.slog.Warn("evidence log: appraisals came faster than they could be recorded", "dropped", dropped)
			}
		}
	}
}

// close writes what is queued and signs a last head.
func (r *recorder) close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	r.closed = true // a handshake may outlast the drain
	close(r.queue)
	r.mu.Unlock()
	<-r.done
	return r.log.Close()
}
