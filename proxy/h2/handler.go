package h2

import "github.com/jurat-tls/jurat/proxy/message"

// Handler hears what happens on the streams of a connection. What it is shown is valid during the call only, strings
// excepted.
type Handler interface {
	// Data is a part of a body; end says that nothing follows it. The window opens again by s.Consumed.
	Data(s *Stream, p []byte, end bool)
	// Trailers end a body.
	Trailers(s *Stream, f message.Fields)
	// Writable tells that a Write that fell short may go on. It is called once for each that did, and in turns.
	Writable(s *Stream)
	// Closed is the last that is heard of a stream, and is heard of each: what is held of s has to be let go, since s is
	// used for another one. It may come from within any method of s that ends the stream, and before that returns.
	Closed(s *Stream, why Cause)
	// GoAway tells that the peer opens no new streams (to a server), or takes none (to a client). Streams that it did not
	// process have ended when it is called.
	GoAway(c *Conn, last uint32, code ErrCode)
}

// ServerHandler is the Handler of an end towards clients.
type ServerHandler interface {
	Handler
	// Request begins a stream. With end, no body follows. Cookie may be several fields, which one who passes them on in
	// HTTP/1 has to join (RFC 9113 section 8.2.3).
	Request(s *Stream, r *message.Request, end bool)
}

// ClientHandler is the Handler of an end towards services.
type ClientHandler interface {
	Handler
	// Response is the answer on a stream, or an informational one before it. With end, no body follows.
	Response(s *Stream, r *message.Response, end bool)
}
