package wellknown

// MaxPeers is maxPeers.
const MaxPeers = maxPeers

// Peers is how many peers are known.
func (l *Limit) Peers() int { return len(l.peers) }
