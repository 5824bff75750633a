package batch

import (
	"maps"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// The queue against a list that is searched from one end to the other.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit, perPeer := rapid.IntRange(1, 12).Draw(t, "max"), rapid.IntRange(1, 8).Draw(t, "of a peer")
		q := newQueue(limit, perPeer)
		var all []*waiter // in the order of arrival
		of := func(name string) (own []*waiter) {
			for _, w := range all {
				if w.peer.name == name {
					own = append(own, w)
				}
			}
			return own
		}
		forget := func(w *waiter) { all = slices.DeleteFunc(all, func(x *waiter) bool { return x == w }) }
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			default:
				name := rapid.StringMatching("[a-f]").Draw(t, "peer")
				w := &waiter{patient: rapid.Bool().Draw(t, "patient")}
				own := len(of(name))
				most := 0
				for _, x := range all {
					most = max(most, len(of(x.peer.name)))
				}
				out := q.admit(w, name)
				switch {
				case own >= perPeer || len(all) == limit && own+1 >= most:
					if out != w || w.queued {
						t.Fatal("let in one too many")
					}
				case len(all) == limit:
					if out == nil || out == w || out.queued {
						t.Fatal("nobody gave way")
					}
					if theirs := of(out.peer.name); len(theirs) != most || out != theirs[most-1] {
						t.Fatal("the wrong one gave way")
					}
					forget(out)
					all = append(all, w)
				default:
					if out != nil {
						t.Fatal("crowded out without need")
					}
					all = append(all, w)
				}
			case 4:
				if len(all) > 0 {
					w := all[rapid.IntRange(0, len(all)-1).Draw(t, "who")]
					q.remove(w)
					forget(w)
				}
			case 5:
				n := rapid.IntRange(1, 6).Draw(t, "batch")
				had, got := map[string][]*waiter{}, map[string]int{}
				for _, w := range all {
					had[w.peer.name] = of(w.peer.name)
				}
				batch := q.take(n)
				if len(batch) != min(n, len(all)) {
					t.Fatalf("%d of %d", len(batch), len(all))
				}
				for _, w := range batch {
					name := w.peer.name
					if w.queued || had[name][got[name]] != w {
						t.Fatal("not first come, first served")
					}
					got[name]++
					forget(w)
				}
				// Who was left with something got as much as anybody, but for the turn under way.
				for name, own := range had {
					if got[name] < len(own) && slices.Max(slices.Collect(maps.Values(got)))-got[name] > 1 {
						t.Fatalf("%s got %d of %d: %v", name, got[name], len(own), got)
					}
				}
			}
			// What the queue knows about itself.
			var patient []*waiter
			most := 0
			names := map[string]bool{}
			for _, w := range all {
				if w.patient {
					patient = append(patient, w)
				}
				most = max(most, len(of(w.peer.name)))
				names[w.peer.name] = true
				if !w.queued {
					t.Fatal("lost")
				}
			}
			if q.waiting != len(all) || q.urgent != len(all)-len(patient) || q.most != most || len(q.peers) != len(names) {
				t.Fatalf("%d wait, %d urgent, most %d, %d peers; want %d, %d, %d, %d", q.waiting, q.urgent, q.most, len(q.peers), len(all), len(all)-len(patient), most, len(names))
			}
			if len(patient) > 0 && q.patient.next.of != patient[0] || len(patient) == 0 && !q.patient.empty() {
				t.Fatal("the oldest patient one is another")
			}
		}
	})
}

// A turn goes on where the last batch ended.
func TestTurns(t *testing.T) {
	q := newQueue(100, 100)
	for _, name := range []string{"a", "a", "a", "a", "b", "b", "c"} {
		q.admit(&waiter{}, name)
	}
	got := ""
	for _, n := range []int{2, 2, 3} {
		for _, w := range q.take(n) {
			got += w.peer.name
		}
		got += " "
	}
	if got != "ab ca baa " {
		t.Error(got)
	}
}

// Any number of peers costs no more memory than the leaves that wait.
func TestManyPeers(t *testing.T) {
	q := newQueue(1000, 10)
	for i := range 100_000 {
		q.admit(&waiter{}, strconv.Itoa(i))
	}
	if len(q.peers) != 1000 || q.waiting != 1000 || len(q.levels) != 2 {
		t.Errorf("%d peers, %d leaves, %d levels", len(q.peers), q.waiting, len(q.levels))
	}
	q.take(1000)
	if len(q.peers) != 0 || !q.turns.empty() || q.most != 0 {
		t.Errorf("%d peers are left", len(q.peers))
	}
}

// The cost of one leaf in a storm: a full queue of many peers with unequal shares, in which newcomers crowd out others and
// one of them is refused.
func BenchmarkStorm(b *testing.B) {
	for _, peers := range []int{10, 1000, 100_000} {
		b.Run(strconv.Itoa(peers), func(b *testing.B) {
			q := newQueue(16384, 4096)
			names := make([]string, peers)
			for i := range names {
				names[i] = strconv.Itoa(i)
			}
			for i := range 16384 {
				q.admit(&waiter{}, names[(i/4)%peers])
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				q.admit(&waiter{}, names[i*7919%peers])
				if i%64 == 0 {
					q.take(16)
				}
			}
		})
	}
}
