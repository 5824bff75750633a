package proxy

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

// Kept answers how much the clients' connections of HTTP/2 keep of streams that have ended, after a time in which nothing has
// happened if quiet is set.
func (s *Server) Kept(quiet bool) (n int) {
	for _, w := range s.http.workers {
		done := make(chan int)
		w.loop.Do(func() {
			kept := 0
			for c := range w.clients {
				d, ok := c.(*front2)
				if !ok {
					continue
				}
				if quiet {
					d.quiet = d.quiet.Add(-silence)
					d.tick()
				}
				kept += len(d.free)
			}
			done <- kept
		})
		n += <-done
	}
	return n
}
