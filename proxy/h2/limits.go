package h2

import "time"

// Limits bound what a peer can make a Conn hold or do. A zero field takes the default that its comment names.
type Limits struct {
	Streams int    // open at once, 256; a service may want less
	Connect string // the protocol that extended CONNECT (RFC 8441) is offered to clients for, such as "websocket"; "" for none

	HeaderBytes   int // of a head, counted as RFC 9113 section 6.5.2 does: 64 KiB
	HeaderFields  int // of a head, 256
	HeaderBlock   int // compressed bytes of a head, twice HeaderBytes; above it the connection ends, below it the stream is answered
	Continuations int // frames that a head goes on in, 16
	Informational int // responses before the final one, 16

	DecoderTable int // bytes of HPACK's table for what the peer sends, 4 KiB
	EncoderTable int // bytes of HPACK's table for what we send, 4 KiB; the peer may want less

	StreamWindow int // bytes that may be on their way or not Consumed on one stream, 256 KiB
	ConnWindow   int // likewise on all streams together, 1 MiB

	Output  int // queued bytes from which Write takes no more, 64 KiB
	Control int // queued bytes of frames that the peer provoked, 32 KiB

	// Resets is how often streams may end before their time because of the client: by RST_STREAM (CVE-2023-44487), and by
	// violations that make us send one (CVE-2025-8671). Each stream that ends well gives one back. 512, then 32 a second.
	Resets Rate
	// Frames is how often a peer may send what moves nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, frames on
	// closed streams, refused ones, unknown ones. Heads and bytes that move give some back. 2048, then 256 a second.
	Frames Rate
}

// Rate is a number at once, and how many come back each second.
type Rate struct{ Burst, PerSecond int }

func (l Limits) withDefaults() Limits {
	set := func(v *int, def, most int) {
		if *v <= 0 {
			*v = def
		}
		*v = min(*v, most)
	}
	const most = 1 << 30 // far from where sums would overflow
	set(&l.Streams, 256, 1<<16)
	set(&l.HeaderBytes, 64<<10, 1<<24)
	set(&l.HeaderFields, 256, 1<<16)
	set(&l.HeaderBlock, 2*l.HeaderBytes, 1<<25)
	set(&l.Continuations, 16, 1<<16)
	set(&l.Informational, 16, 1<<15)
	set(&l.DecoderTable, 4<<10, 1<<20)
	set(&l.EncoderTable, 4<<10, 1<<20)
	set(&l.StreamWindow, 256<<10, most)
	set(&l.ConnWindow, 1<<20, most)
	set(&l.Output, 64<<10, most)
	set(&l.Control, 32<<10, most)
	rate := func(r *Rate, burst, perSecond int) {
		set(&r.Burst, burst, most)
		set(&r.PerSecond, perSecond, most)
	}
	rate(&l.Resets, 512, 32)
	rate(&l.Frames, 2048, 256)
	return l
}

// budget is what is spent of a Rate.
type budget struct {
	spent int
	at    time.Duration // up to which what comes back has been counted
}

// take spends n and reports whether there was enough.
func (b *budget) take(n int, r Rate, now time.Duration) bool {
	if b.spent += n; b.spent <= r.Burst {
		return true
	}
	// In milliseconds, and not many of them, so that the product does not overflow.
	ms := min(max(now-b.at, 0)/time.Millisecond, 1<<20)
	back := int(ms) * r.PerSecond / 1000
	if back == 0 {
		return false
	}
	b.at = now
	b.spent = max(b.spent-back, n)
	return b.spent <= r.Burst
}

func (b *budget) giveBack(n int) { b.spent = max(b.spent-n, 0) }
