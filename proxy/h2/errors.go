package h2

import (
	"errors"
	"strconv"
)

// ErrCode tells why a stream or a connection ended (RFC 9113 section 7).
type ErrCode uint32

// The codes of RFC 9113 section 7.
const (
	NoError            ErrCode = 0x0
	ProtocolError      ErrCode = 0x1
	InternalError      ErrCode = 0x2
	FlowControlError   ErrCode = 0x3
	SettingsTimeout    ErrCode = 0x4
	StreamClosed       ErrCode = 0x5
	FrameSizeError     ErrCode = 0x6
	RefusedStream      ErrCode = 0x7
	Cancel             ErrCode = 0x8
	CompressionError   ErrCode = 0x9
	ConnectError       ErrCode = 0xa
	EnhanceYourCalm    ErrCode = 0xb
	InadequateSecurity ErrCode = 0xc
	HTTP11Required     ErrCode = 0xd
)

// String is the code's name in the RFC.
func (c ErrCode) String() string {
	names := [...]string{
		"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
		"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
		"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
	}
	if int64(c) < int64(len(names)) {
		return names[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}

// Error is why a connection cannot go on (RFC 9113 section 5.4.1).
type Error struct {
	Code ErrCode
	Why  string // for logs: holds nothing that the peer sent
}

func (e *Error) Error() string { return "HTTP/2: " + e.Why + " (" + e.Code.String() + ")" }

// What calls out of turn are answered with.
var (
	ErrBusy      = errors.New("HTTP/2: the connection takes no further request now")
	ErrState     = errors.New("HTTP/2: the stream is past that")
	ErrMalformed = errors.New("HTTP/2: a head that cannot be sent")
)

// Origin is who ended a stream.
type Origin uint8

// Who ended a stream.
const (
	Complete   Origin = iota // nobody: both directions have come to their ends
	Peer                     // the peer, by RST_STREAM, or by a GOAWAY that leaves the stream out
	Local                    // Reset
	Violation                // the peer broke the rules on this stream only
	Connection               // the connection has ended
)

// Cause is why a stream ended. A request whose Code is RefusedStream was not processed, and may be tried again elsewhere
// (RFC 9113 section 8.7).
type Cause struct {
	Code ErrCode
	By   Origin
}
