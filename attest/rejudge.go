package attest

import (
	"slices"
	"time"
)

// RejudgeAlike is Rejudge for many connections, or Renew where a Renewal is given. Connections that stand on the same claims
// differ in the age of their evidence alone, and where the policy says that older is worse (OlderIsWorse), the worst and the
// best of them settle it for all between: asking it for each of ten thousand takes longer than an emergency should. Where the
// two differ, or the policy says nothing, each is judged for itself. Where the policy says that it judges claims of one Kind
// alike (JudgesAlike), that is as good as the same claims; but not for a Renewal, which is of one piece of evidence.
//
// each is called once for every Result of all, with its place in it, and has to be quick. The policy was asked as often as the
// answer says.
func RejudgeAlike(all []*Result, renewal *Renewal, policy Policy, now time.Time, each func(int, *Result)) (asked int) {
	renew := func(r *Result) *Result {
		asked++
		if renewal != nil {
			return r.Renew(*renewal, policy, now)
		}
		return r.Rejudge(policy, now)
	}
	settle := func(next *Result) int {
		aged := append(slices.Clip(next.unsaid), "the age of this connection's own evidence: it was judged with others on the same claims, for which ages between the oldest and the youngest make no difference")
		for i, r := range all {
			each(i, r.settled(next, renewal, aged))
		}
		return asked
	}
	if worst, best, ok := extremes(all, renewal == nil && judgesAlike(policy), now); ok && olderIsWorse(policy) {
		bad := renew(worst)
		if bad.Affirmed() {
			return settle(bad)
		}
		// The best one may be refused for less, and those between for what either is.
		same := func(a, b Check) bool { return a.ID == b.ID && a.Status == b.Status && a.Code == b.Code }
		if next := renew(best); next.situation != nil && !next.Affirmed() && slices.EqualFunc(bad.said, next.said, same) {
			return settle(next)
		}
	}
	for i, r := range all {
		each(i, renew(r))
	}
	return asked
}

// extremes answers the situations that are worst and best among Results which differ in ages alone; ok is false where they differ
// in more, where there is nothing to be saved, or where an age is unknown or in the future, which policies refuse. alike says that
// claims of one Kind are no difference.
func extremes(all []*Result, alike bool, now time.Time) (worst, best *Result, ok bool) {
	if len(all) < 2 || !all[0].Affirmed() {
		return nil, nil, false
	}
	first := all[0]
	oldest, youngest := first.situation.Made, first.situation.Made
	longest, shortest := first.situation.waited(), first.situation.waited()
	for _, r := range all {
		if !r.Affirmed() || (r.claims != first.claims || r.digest != first.digest) && !(alike && r.kind == first.kind) {
			return nil, nil, false
		}
		a, b := *r.situation, *first.situation
		a.Made, a.Now, a.Reconnected, b.Made, b.Now, b.Reconnected = time.Time{}, time.Time{}, time.Time{}, time.Time{}, time.Time{}, time.Time{}
		made, waited := r.situation.Made, r.situation.waited()
		if a != b || made.IsZero() || made.After(now) || waited < 0 {
			return nil, nil, false
		}
		if made.Before(oldest) {
			oldest = made
		}
		if made.After(youngest) {
			youngest = made
		}
		longest, shortest = max(longest, waited), min(shortest, waited)
	}
	return first.aged(oldest, longest), first.aged(youngest, shortest), true
}

// waited is how old evidence was when a connection that shows none stood on it.
func (s *Situation) waited() time.Duration {
	if s.Reconnected.IsZero() {
		return 0
	}
	return s.Reconnected.Sub(s.Made)
}

// aged is r with evidence of other ages.
func (r *Result) aged(made time.Time, waited time.Duration) *Result {
	other, s := *r, *r.situation
	s.Made = made
	if !s.Reconnected.IsZero() {
		s.Reconnected = made.Add(waited)
	}
	other.situation = &s
	return &other
}

// settled is the Result for r where that of another connection, on the same claims, settles it. aged is what the policy has not looked
// at where the other one's evidence has another age.
func (r *Result) settled(next *Result, v *Renewal, aged []string) *Result {
	// What was found on the way to the connection is its own; what the policy says is the same for all.
	mine := r.found(v)
	mine.time, mine.policyID, mine.before, mine.said, mine.unsaid = next.time, next.policyID, len(mine.checks), next.said, next.unsaid
	s := *r.situation
	if s.Now = next.situation.Now; !s.Made.Equal(next.situation.Made) {
		mine.unsaid = aged
	}
	mine.situation = &s
	mine.conclude()
	return mine
}
