package proxyproto

// Type tells what a TLV of version 2 holds.
type Type byte

// The types that are registered, and ours.
const (
	TypeALPN      Type = 0x01 // the protocol above, as ALPN names it
	TypeAuthority Type = 0x02 // the host name that the client asked for, such as the server name of TLS
	TypeCRC32C    Type = 0x03 // the checksum: never among Header.TLVs
	TypeNoop      Type = 0x04 // padding: never among Header.TLVs
	TypeUniqueID  Type = 0x05 // names the connection, in at most 128 bytes
	TypeSSL       Type = 0x20 // how TLS to the client went: 5 bytes, and TLVs inside
	TypeNetns     Type = 0x30 // the network namespace

	// TypeResult is what the client proved by attestation: the value of the header Jurat-Result, a dictionary of RFC 9651.
	// It is of the range that the specification leaves to applications, 0xE0 to 0xEF.
	TypeResult Type = 0xE7
)

// TLV is one piece of what version 2 says besides addresses.
type TLV struct {
	Type  Type
	Value []byte
}

const (
	maxTLVs     = 64
	maxUniqueID = 128
	minSSL      = 5
)

// once reports whether t says one thing about the connection, so that a second one would contradict it.
func (t Type) once() bool {
	switch t {
	case TypeALPN, TypeAuthority, TypeCRC32C, TypeUniqueID, TypeSSL, TypeNetns, TypeResult:
		return true
	}
	return false
}
