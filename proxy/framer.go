package proxy

import (
	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// framer1 writes a body to a connection of HTTP/1.1, as its head has said: in chunks, or as it is.
type framer1 struct{ chunked bool }

var chunkEnd = []byte(h1.ChunkEnd)

// send writes a part of the body, and answers false when no more shall come for now.
func (f *framer1) send(w *worker, conn *loop.Conn, p []byte) bool {
	switch {
	case len(p) == 0:
		return true
	case !f.chunked:
		return conn.Write(p)
	}
	w.out = h1.AppendChunkSize(w.out[:0], len(p))
	conn.Write(w.out)
	conn.Write(p)
	return conn.Write(chunkEnd)
}

// end writes the end of the body. It writes nothing where one of the trailers can't be said.
func (f *framer1) end(w *worker, conn *loop.Conn, trailers message.Fields) error {
	if !f.chunked {
		return nil
	}
	out, err := h1.AppendLastChunk(w.out[:0], trailers)
	if err != nil {
		return err
	}
	w.out, f.chunked = out[:0], false
	conn.Write(out)
	return nil
}
