package attest

import "testing"

// TestNoCheckAtAll: a transcript without a single check is a refusal, however it came about.
func TestNoCheckAtAll(t *testing.T) {
	r := &Result{verdict: Affirmed}
	r.conclude()
	if r.Affirmed() || r.Code() != CodeEmptyPolicy {
		t.Errorf("%v %s", r.Verdict(), r.Code())
	}
}
