package tally_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/tally"
)

func TestRequests(t *testing.T) {
	r := tally.NewRequests(2)
	for i, status := range []int{-100, 0, 99, 100, 101, 200, 204, 301, 404, 503, 600, 999} {
		r.Shard(i).Observe(status, time.Millisecond, time.Microsecond, 1, math.MaxUint64)
	}
	s := r.Stats()
	if s.Responses != [6]uint64{5, 2, 2, 1, 1, 1} || s.Duration.Count() != 12 || s.Duration.Sum != 12_000 || s.FirstByte.Count() != 7 || s.FirstByte.Sum != 7 {
		t.Errorf("%+v", s)
	}
	if s.Received.Sum != 12 || s.Sent.Counts[len(s.Sent.Counts)-1] != 12 {
		t.Errorf("%+v", s)
	}
	if s := tally.NewRequests(0).Shard(-1); s == nil {
		t.Error("no shard")
	}
}

func TestRequestsConcurrent(t *testing.T) {
	r := tally.NewRequests(2)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 1000 {
				r.Shard(i).Observe(200, time.Millisecond, time.Microsecond, 1, 1)
				if i == 0 {
					r.Stats()
				}
			}
		})
	}
	all.Wait()
	if s := r.Stats(); s.Responses[2] != 4000 || s.Duration.Count() != 4000 {
		t.Errorf("%+v", s)
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	s := tally.NewRequests(1).Shard(0)
	if n := testing.AllocsPerRun(100, func() { s.Observe(200, time.Second, time.Millisecond, 12, 34) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// hardware verifies evidence that is the report data itself.
type hardware struct{ claims attest.Claims }

func (h hardware) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	c := h.claims
	c.ReportData = attest.ReportData(ev.Raw)
	return &c, nil
}

type policy struct{ code attest.Code }

func (p policy) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	c := attest.Check{ID: "test", Status: attest.StatusPass}
	if p.code != "" {
		c.Status, c.Code = attest.StatusFail, p.code
	}
	return attest.Judgement{ID: "sha256:feed", Checks: []attest.Check{c}}
}

func appraise(claims attest.Claims, made time.Time, code attest.Code) *attest.Result {
	data := attest.ReportData{1}
	a := attest.NewAppraiser(attest.NoEndorser{}, hardware{claims})
	return a.Appraise(context.Background(), &attest.Evidence{Format: "test", Raw: data[:]}, attest.Expect(data, attest.LevelKey, made), policy{code}, now)
}

var (
	now   = time.Unix(1_800_000_000, 0)
	genoa = attest.Claims{Vendor: "amd", TEE: "snp", Generation: "genoa"}
)

func TestPeers(t *testing.T) {
	p := tally.NewPeers()
	p.Observe(nil)
	p.Observe(&attest.Result{})
	p.Observe(appraise(genoa, now.Add(-2*time.Minute), ""))
	p.Observe(appraise(genoa, now.Add(time.Minute), "")) // by a clock that is fast
	p.Observe(appraise(genoa, time.Time{}, attest.CodeMeasurement))
	p.Observe(appraise(attest.Claims{Vendor: "sim", TEE: "tdx", Generation: "q", Simulated: true}, time.Time{}, attest.CodeEndorserUnreachable))
	s := p.Stats()
	want := map[tally.Peer]uint64{
		{}: 1,
		{Verdict: attest.Affirmed, Vendor: "amd", TEE: "snp", Generation: "genoa", Level: attest.LevelKey}:               2,
		{Verdict: attest.Refused, Vendor: "amd", TEE: "snp", Generation: "genoa", Level: attest.LevelKey}:                1,
		{Verdict: attest.Undecided, Vendor: "sim", TEE: "tdx", Generation: "q", Level: attest.LevelKey, Simulated: true}: 1,
	}
	if fmt.Sprint(s.Counts) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", s.Counts, want)
	}
	if s.Ages.Count() != 2 || s.Ages.Sum != 120_000_000 || s.Ages.Counts[0] != 1 || s.Ages.Counts[3] != 1 {
		t.Errorf("%+v", s.Ages)
	}
	s.Counts[tally.Peer{}] = 99
	if got := p.Stats().Counts[tally.Peer{}]; got != 1 {
		t.Error("a snapshot is the tally itself")
	}
}

// Names that a verifier passes on from evidence don't fill the memory.
func TestPeersAreBounded(t *testing.T) {
	p := tally.NewPeers()
	long := strings.Repeat("x", 41)
	for _, c := range []attest.Claims{{Vendor: long}, {TEE: long}, {Generation: long}} {
		p.Observe(appraise(c, time.Time{}, ""))
	}
	other := tally.Peer{Verdict: attest.Affirmed, Vendor: tally.Other, TEE: tally.Other, Generation: tally.Other, Level: attest.LevelKey}
	if got := p.Stats().Counts; len(got) != 1 || got[other] != 3 {
		t.Error(got)
	}
	for i := range 1000 {
		p.Observe(appraise(attest.Claims{Generation: fmt.Sprint(i)}, time.Time{}, ""))
		p.Observe(appraise(attest.Claims{Generation: "0"}, time.Time{}, ""))
	}
	got := p.Stats().Counts
	first := tally.Peer{Verdict: attest.Affirmed, Generation: "0", Level: attest.LevelKey}
	if len(got) != 64 || got[first] != 1001 || got[other] != 3+1000-63 {
		t.Error(len(got), got[first], got[other])
	}
}
