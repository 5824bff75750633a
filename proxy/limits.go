package proxy

import "time"

// Limits bound what strangers can make a Server hold. A zero field takes the default that its comment names.
type Limits struct {
	Connections int // open at once, 16384; further ones wait in the kernel's queue
	Peer        int // of them from one address, in IPv6 from one /64: all but an eighth, so that nobody shuts out all others; negative for all
	Handshakes  int // under way at once, 4096; further ones wait in the kernel's queue

	Handshake time.Duration // for a handshake, or for dialing and appraising a peer, 10 s
	Crowded   time.Duration // for the handshake of a client while others wait for its place, 1 s
	Header    time.Duration // for the header of a request, 10 s
	KeepAlive time.Duration // for an HTTP connection without a request, 2 min
	Tunnel    time.Duration // for a raw connection on which nothing moves, 1 h; negative for ever
	Connect   time.Duration // for connecting to the service, 5 s
	// Stall is how long not a byte of a request's body may move, whether the client does not send it or the service, which has
	// not answered, does not read it, and how long the client may take no byte of a response, 1 min; negative for ever. gRPC
	// calls are exempt: they may be silent for as long as they like.
	Stall time.Duration
	// Answer is how long the service may take from the end of a request to the header of its answer, 60 s; negative for
	// ever. It bounds no body. gRPC calls are exempt: they carry deadlines of their own, and a server may hold the header
	// back until it has a first message.
	Answer time.Duration
}

const (
	maxHeader     = 64 << 10  // of a request
	maxBackHeader = 1 << 20   // of an answer of the service
	maxBackFrames = 128       // of HTTP/2 that it goes on in, 16 KiB each: HPACK may make it longer
	backWindow    = 128 << 10 // of an answer in HTTP/2 that its client does not read
	maxFields     = 128       // of a head
	maxHints      = 16        // informational answers before the final one
	maxStreams    = 256       // concurrent, per HTTP/2 connection
)

func (l Limits) withDefaults() Limits {
	atLeast := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	atLeast(&l.Connections, 16384)
	atLeast(&l.Handshakes, 4096)
	switch {
	case l.Peer == 0:
		l.Peer = l.Connections - l.Connections/8
	case l.Peer < 0:
		l.Peer = l.Connections
	}
	positive := func(v *time.Duration, def time.Duration) {
		if *v <= 0 {
			*v = def
		}
	}
	positive(&l.Handshake, 10*time.Second)
	positive(&l.Crowded, time.Second)
	positive(&l.Header, 10*time.Second)
	positive(&l.KeepAlive, 2*time.Minute)
	positive(&l.Connect, 5*time.Second)
	optional := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
		*v = max(*v, 0) // 0 now means no limit
	}
	optional(&l.Tunnel, time.Hour)
	optional(&l.Answer, time.Minute)
	optional(&l.Stall, time.Minute)
	return l
}
