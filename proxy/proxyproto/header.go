package proxyproto

import (
	"bytes"
	"errors"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
)

// What a header may have at most, in bytes.
const (
	MaxV1 = 107
	MaxV2 = 4 << 10 // with the 16 bytes that say how long it is
)

// ErrMore says that what there is of a header is right and not complete.
var ErrMore = errors.New("PROXY protocol: the header is not complete")

// Error is a header that is refused, and why. It never quotes the header.
type Error string

func (e Error) Error() string { return "PROXY protocol: " + string(e) }

// Kind is what a header says of the connection that it opens. The zero value is none.
type Kind uint8

// The kinds of connections.
const (
	// Local is the sender's own connection, such as a health check: its addresses are those of the connection itself.
	Local Kind = iota + 1
	// Unknown is a forwarded connection of which the sender can say nothing: UNKNOWN in version 1, UNSPEC in version 2.
	Unknown
	TCP
	UDP
	Unix
	UnixDatagram
)

func (k Kind) String() string {
	names := [...]string{Local: "LOCAL", Unknown: "UNKNOWN", TCP: "TCP", UDP: "UDP", Unix: "UNIX stream", UnixDatagram: "UNIX datagram"}
	if int(k) < len(names) && k > 0 {
		return names[k]
	}
	return "none"
}

// Header is what a header says. The zero value is none, and is not written.
type Header struct {
	Version int // 1 or 2
	Kind    Kind

	// Source and Destination are the client's end and the one that it connected to, of TCP and UDP. Both are IPv4 or both
	// are IPv6, without zones.
	Source, Destination netip.AddrPort
	// SourcePath and DestinationPath are those of sockets of Unix and UnixDatagram: at most 108 bytes, empty for a socket
	// without a name, beginning with a zero byte for an abstract one.
	SourcePath, DestinationPath string

	TLVs     []TLV // of version 2, in their order, without the checksum and without padding
	Checksum bool  // there is one (CRC32C), and it is right
}

// Addressed reports whether h says where the connection comes from. Where it does not, the addresses of the connection that
// the header came on are all that is known.
func (h Header) Addressed() bool { return h.Kind >= TCP && h.Kind <= UnixDatagram }

// TLV answers the value of the first TLV of type t.
func (h Header) TLV(t Type) ([]byte, bool) {
	for _, v := range h.TLVs {
		if v.Type == t {
			return v.Value, true
		}
	}
	return nil, false
}

const (
	signature  = "\r\n\r\n\x00\r\nQUIT\n" // of version 2
	fixed      = 16                       // bytes of version 2 up to the addresses
	pathLength = 108
)

// wire is how version 2 tells a kind: the byte for it with IPv4 and with IPv6.
func (k Kind) wire(v6 bool) byte {
	b := [...]byte{TCP: 0x11, UDP: 0x12, Unix: 0x31, UnixDatagram: 0x32, Unknown: 0x00, Local: 0x00}[k]
	if v6 {
		b += 0x10
	}
	return b
}

// Append appends h, as its version writes it, to dst. What can't be told in that version is an Error, and so is what Parse
// would not give back alike; dst comes back as it was then.
func Append(dst []byte, h Header) ([]byte, error) {
	var out []byte
	var err error
	switch h.Version {
	case 1:
		out, err = append1(dst, h)
	case 2:
		out, err = append2(dst, h)
	default:
		err = Error("a version other than 1 and 2")
	}
	if err == nil {
		_, _, err = Parse(out[len(dst):]) // the rules for what is read are those for what is written
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

func append1(dst []byte, h Header) ([]byte, error) {
	if len(h.TLVs) > 0 || h.Checksum {
		return nil, Error("version 1 has neither TLVs nor a checksum")
	}
	if err := h.checkAddresses(); err != nil {
		return nil, err
	}
	switch h.Kind {
	case Unknown:
		return append(dst, "PROXY UNKNOWN\r\n"...), nil
	case TCP:
	default:
		return nil, Error("version 1 tells of TCP only")
	}
	dst = append(dst, "PROXY TCP4 "...)
	if h.Source.Addr().Is6() {
		dst[len(dst)-2] = '6'
	}
	dst = append(dst, text(h.Source.Addr())+" "+text(h.Destination.Addr())+" "...)
	dst = strconv.AppendUint(dst, uint64(h.Source.Port()), 10)
	dst = strconv.AppendUint(append(dst, ' '), uint64(h.Destination.Port()), 10)
	return append(dst, "\r\n"...), nil
}

// text is an address in the form of version 1, which knows hexadecimal digits only in IPv6.
func text(a netip.Addr) string {
	if a.Is4In6() {
		return a.StringExpanded()
	}
	return a.String()
}

// checkAddresses reports why a header could not say what h holds of addresses.
func (h Header) checkAddresses() error {
	paths := h.SourcePath != "" || h.DestinationPath != ""
	none := h.Source == netip.AddrPort{} && h.Destination == netip.AddrPort{}
	switch h.Kind {
	case Local, Unknown:
		if paths || !none {
			return Error("addresses where the kind has none")
		}
	case TCP, UDP:
		a, b := h.Source.Addr(), h.Destination.Addr()
		if paths || a.BitLen() != b.BitLen() || a.Zone() != "" || b.Zone() != "" { // two that are none can't be read back
			return Error("addresses that are not two of one family without zones")
		}
	case Unix, UnixDatagram:
		if !none || !isPath(h.SourcePath) || !isPath(h.DestinationPath) {
			return Error("addresses that are not two paths of sockets")
		}
	default:
		return Error("a connection of no kind")
	}
	return nil
}

// isPath reports whether readers take all of s, padded with zero bytes, for the path.
func isPath(s string) bool {
	if s == "" {
		return true
	}
	return len(s) <= pathLength && s[len(s)-1] != 0 && (s[0] == 0 || !strings.Contains(s, "\x00"))
}

func append2(dst []byte, h Header) ([]byte, error) {
	if err := h.checkAddresses(); err != nil {
		return nil, err
	}
	if h.Kind == Local && (len(h.TLVs) > 0 || h.Checksum) {
		return nil, Error("LOCAL has neither TLVs nor a checksum")
	}
	start := len(dst)
	command := byte(0x21)
	if h.Kind == Local {
		command = 0x20
	}
	dst = append(append(dst, signature...), command, h.Kind.wire(h.Source.Addr().Is6()), 0, 0)
	switch h.Kind {
	case TCP, UDP:
		dst = append(append(dst, h.Source.Addr().AsSlice()...), h.Destination.Addr().AsSlice()...)
		dst = append16(append16(dst, h.Source.Port()), h.Destination.Port())
	case Unix, UnixDatagram:
		dst = append(append(dst, h.SourcePath...), make([]byte, pathLength-len(h.SourcePath))...)
		dst = append(append(dst, h.DestinationPath...), make([]byte, pathLength-len(h.DestinationPath))...)
	}
	for _, v := range h.TLVs {
		if v.Type == TypeCRC32C || v.Type == TypeNoop {
			return nil, Error("a checksum or padding among the TLVs")
		}
		dst = append(append16(append(dst, byte(v.Type)), uint16(len(v.Value))), v.Value...)
	}
	if h.Checksum {
		dst = append(dst, byte(TypeCRC32C), 0, 4, 0, 0, 0, 0)
	}
	size := len(dst) - start
	if size > MaxV2 {
		return nil, errLong
	}
	dst[start+14], dst[start+15] = byte((size-fixed)>>8), byte(size-fixed)
	if h.Checksum {
		sum := crc32.Checksum(dst[start:], crc32.MakeTable(crc32.Castagnoli))
		for i := range 4 {
			dst[len(dst)-4+i] = byte(sum >> (24 - 8*i))
		}
	}
	return dst, nil
}

func append16(dst []byte, v uint16) []byte { return append(dst, byte(v>>8), byte(v)) }

// cString is the path in a field of version 2, which C reads up to the first zero byte unless that begins an abstract name.
func cString(field []byte) string {
	if field[0] == 0 {
		return string(bytes.TrimRight(field, "\x00"))
	}
	path, _, _ := bytes.Cut(field, []byte{0})
	return string(path)
}
