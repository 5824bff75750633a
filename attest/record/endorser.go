package record

import (
	"context"
	"errors"
	"sync"

	"github.com/jurat-tls/jurat/attest"
)

// Recorder is an Endorser that passes requests on and remembers the answers. It is safe for concurrent use.
type Recorder struct {
	next attest.Endorser

	mu      sync.Mutex
	fetched []Fetched
}

// NewRecorder makes one.
func NewRecorder(next attest.Endorser) *Recorder { return &Recorder{next: next} }

// Endorse implements attest.Endorser.
func (r *Recorder) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	list, err := r.next.Endorse(ctx, ref)
	answer := Fetched{Ref: ref, Endorsements: list}
	if err == nil && len(list) == 0 {
		err = &attest.Error{Code: attest.CodeEndorsementMissing, Check: "endorsements", Got: "an empty answer"}
	}
	if err != nil {
		var coded *attest.Error
		if !errors.As(err, &coded) || !coded.Code.Undecidable() {
			coded = &attest.Error{Code: attest.CodeEndorserUnreachable, Check: "endorsements", Err: err}
		}
		answer.Endorsements, answer.Problem, err = nil, coded, coded
		list = nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetched = append(r.fetched, answer)
	return list, err
}

// Fetched is what was asked so far, in order.
func (r *Recorder) Fetched() []Fetched {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Fetched(nil), r.fetched...)
}

// Endorser answers as it was recorded, and has nothing else: a replay never touches the network. It has no bare public keys
// either: those are anchors, and whoever made the file would name his own.
func (r *Record) Endorser() attest.Endorser { return replay(r.Fetched) }

type replay []Fetched

// Endorse implements attest.Endorser.
func (r replay) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	for _, f := range r {
		if f.Ref != ref || ref.Kind == attest.KindPublicKey {
			continue
		}
		if f.Problem != nil {
			return nil, f.Problem
		}
		return f.Endorsements, nil
	}
	return attest.NoEndorser{}.Endorse(ctx, ref)
}
