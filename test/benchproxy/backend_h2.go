package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
)

// Frames of HTTP/2 (RFC 9113) that the backend deals with.
const (
	frameData = iota
	frameHeaders
	_ // priority
	_ // reset
	frameSettings
	_ // push
	framePing
	_ // goaway
	frameWindow

	flagEnd     = 1 // of a stream; of settings and pings: acknowledged
	flagHeaders = 4 // they end here
)

const grpcSize = 1000 // bytes of a message

// message is a gRPC message of that size.
func message() []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, grpcSize-5), make([]byte, grpcSize-5)...)
}

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	b = binary.BigEndian.AppendUint32(append(b, flags), stream)
	return append(b, payload...)
}

// literal is a header field that nobody shall keep in a table, in HPACK.
func literal(name, value string) []byte {
	b := append([]byte{0, byte(len(name))}, name...)
	return append(append(b, byte(len(value))), value...)
}

// unary is the answer to a call of gRPC: header, a message, trailers. The stream is filled in at marks.
func unary() (answer []byte, marks [3]int) {
	head := append([]byte{0x88}, literal("content-type", "application/grpc")...) // 0x88 is ":status: 200"
	parts := [][]byte{
		frame(frameHeaders, flagHeaders, 0, head),
		frame(frameData, 0, 0, message()),
		frame(frameHeaders, flagHeaders|flagEnd, 0, literal("grpc-status", "0")),
	}
	for i, p := range parts {
		marks[i] = len(answer) + 5
		answer = append(answer, p...)
	}
	return answer, marks
}

// serveH2 answers every stream with one message of gRPC, whatever it asks.
func serveH2(conn net.Conn, r *bufio.Reader) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	const window = 1 << 30
	if _, err := r.Discard(len(preface)); err != nil {
		return
	}
	w := bufio.NewWriterSize(conn, 64<<10)
	settings := binary.BigEndian.AppendUint32([]byte{0, 3}, 1<<20)                       // streams at once
	settings = binary.BigEndian.AppendUint32(append(settings, 0, 4), window)             // bytes on the way in each
	_, _ = w.Write(frame(frameSettings, 0, 0, settings))                                 // a Writer keeps its first error for Flush
	_, _ = w.Write(frame(frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, window))) // and in all
	reply, marks := unary()
	may := int64(65535) // bytes that the peer takes
	var waiting []uint32
	var got uint32 // bytes since the window was last opened
	head := make([]byte, 9)
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		if _, err := io.ReadFull(r, head); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(head) >> 8
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		payload := head[:0:0]
		if kind == frameWindow || kind == framePing {
			payload = make([]byte, size)
			if _, err := io.ReadFull(r, payload); err != nil || size < 4 {
				return
			}
		} else if _, err := r.Discard(int(size)); err != nil {
			return
		}
		switch kind {
		case frameSettings:
			if flags&flagEnd == 0 {
				_, _ = w.Write(frame(frameSettings, flagEnd, 0, nil))
			}
		case framePing:
			if flags&flagEnd == 0 {
				_, _ = w.Write(frame(framePing, flagEnd, 0, payload))
			}
		case frameWindow:
			if stream == 0 {
				may += int64(binary.BigEndian.Uint32(payload))
			}
		case frameData, frameHeaders:
			if kind == frameData {
				got += size
			}
			if flags&flagEnd != 0 {
				waiting = append(waiting, stream)
			}
			if got > window/4 {
				_, _ = w.Write(frame(frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, got)))
				got = 0
			}
		}
		for len(waiting) > 0 && may >= grpcSize {
			for _, at := range marks {
				binary.BigEndian.PutUint32(reply[at:], waiting[0])
			}
			_, _ = w.Write(reply)
			waiting, may = waiting[1:], may-grpcSize
		}
	}
}
