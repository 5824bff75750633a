package oracle

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

// divergence is a difference between our verdict and an oracle's that is known and meant.
type divergence struct {
	oracle string
	class  string // of evidence, as passed to agree; "*" stands for any part of it between slashes
	ours   string // affirms or refuses; the oracle does the other
	reason string
	clause string // what decides
}

// divergences of all oracles. What is not listed fails; what is listed and does not happen any more fails too.
var divergences = slices.Concat(intelDivergences, ccaDivergences, nitroDivergences, tpmDivergences)

// tally counts comparisons, and remembers which divergences were met.
var tally = struct {
	sync.Mutex
	compared map[string]int // by oracle
	met      map[string]int // by oracle and class
}{compared: map[string]int{}, met: map[string]int{}}

func verdict(err error) string {
	if err == nil {
		return "affirms"
	}
	return "refuses"
}

// agree compares our verdict on one piece of evidence with an oracle's.
func agree(t *testing.T, oracle, class, what string, ours, theirs error) {
	t.Helper()
	tally.Lock()
	defer tally.Unlock()
	tally.compared[oracle]++
	if (ours == nil) == (theirs == nil) {
		return
	}
	for _, d := range divergences {
		if hit, err := path.Match(d.class, class); err == nil && hit && d.oracle == oracle && d.ours == verdict(ours) {
			tally.met[oracle+" "+d.class]++
			return
		}
	}
	t.Errorf("%s, %s (%s): we %s (%v), it %s (%v); not in the list of divergences", oracle, class, what, verdict(ours), ours, verdict(theirs), theirs)
}

// met is run when a test that makes the comparisons of an oracle has ended: each divergence in its classes must have
// happened.
func met(t *testing.T, oracle, prefix string) {
	t.Helper()
	tally.Lock()
	defer tally.Unlock()
	var listed []string
	for _, d := range divergences {
		if d.oracle != oracle || !strings.HasPrefix(d.class, prefix) {
			continue
		}
		if d.reason == "" || d.clause == "" {
			t.Errorf("%s, %s: listed without a reason or a clause", oracle, d.class)
		}
		n := tally.met[oracle+" "+d.class]
		if n == 0 {
			t.Errorf("%s, %s: listed, but both verifiers agree now", oracle, d.class)
		}
		listed = append(listed, fmt.Sprintf("%s (%d): we %s: %s [%s]", d.class, n, strings.TrimSuffix(d.ours, "s"), d.reason, d.clause))
	}
	t.Logf("%s: %d comparisons so far; divergences: %d\n  %s", oracle, tally.compared[oracle], len(listed), strings.Join(listed, "\n  "))
}

// contained turns a panic into an error: an oracle that crashes refuses.
func contained(judge func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return judge()
}

// sorted iterates over a table in a fixed order.
func sorted[V any](m map[string]V) func(func(string, V) bool) {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}
