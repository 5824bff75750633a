package proxy

import "slices"

// InLoops is how many connections of clients loops have, and hear of a refusal.
func (s *Server) InLoops() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.open {
		if l.in.Load() != nil {
			n++
		}
	}
	return n
}

// Kept answers how many streams that have ended clients' connections of HTTP/2 keep, and how much output with them, after a time in
// which nothing has happened if quiet is set.
func (s *Server) Kept(quiet bool) (streams, output int) {
	for _, w := range s.http.workers {
		done := make(chan struct{})
		w.loop.Do(func() {
			defer close(done)
			for c := range w.clients {
				d, ok := c.(*front2)
				if !ok {
					continue
				}
				for range 2 {
					if quiet {
						d.trimmed = d.trimmed.Add(-silence)
						d.tick()
					}
				}
				streams += len(d.free)
				for _, t := range d.free {
					output += cap(t.out)
				}
			}
		})
		<-done
	}
	return streams, output
}

// Spread is how many connections each loop has.
func (s *Server) Spread() []int {
	n := make([]int, len(s.engine.group.Loops()))
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.open {
		if c := l.in.Load(); c != nil {
			n[slices.Index(s.engine.group.Loops(), c.Loop())]++
		}
	}
	return n
}
