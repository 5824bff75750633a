package agent

// Parsed is how many policies are kept as they were parsed.
func (a *Agent) Parsed() int { return len(a.parsed) }
