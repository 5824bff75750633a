package h2

import "encoding/binary"

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Types of frames (RFC 9113 section 6).
const (
	typeData         = 0x0
	typeHeaders      = 0x1
	typePriority     = 0x2
	typeReset        = 0x3
	typeSettings     = 0x4
	typePushPromise  = 0x5
	typePing         = 0x6
	typeGoAway       = 0x7
	typeWindowUpdate = 0x8
	typeContinuation = 0x9
)

const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113 section 6.5.2, RFC 8441 section 3).
const (
	settingTableSize     = 0x1
	settingPush          = 0x2
	settingStreams       = 0x3
	settingWindow        = 0x4
	settingFrame         = 0x5
	settingHeaderList    = 0x6
	settingConnect       = 0x8
	initialWindow        = 65535
	initialTable         = 4096
	maxWindow            = 1<<31 - 1
	maxFrame             = 16384 // that we take, and that we send
	maxID                = 1<<31 - 1
	frameHeader          = 9
	streamsBeforeTheySay = 100 // that a client opens before the server's SETTINGS have come
)

// frame is the header of a frame.
type frame struct {
	length int
	kind   byte
	flags  byte
	id     uint32
}

func (f frame) has(flag byte) bool { return f.flags&flag != 0 }

func parseFrame(b []byte) frame {
	_ = b[8]
	return frame{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   b[3],
		flags:  b[4],
		id:     binary.BigEndian.Uint32(b[5:]) & maxID,
	}
}

func appendFrame(dst []byte, length int, kind, flags byte, id uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), kind, flags,
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendSetting(dst []byte, id uint16, value int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, id), uint32(value))
}
