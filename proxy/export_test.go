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
