package proxyproto

import (
	"bytes"
	"hash/crc32"
	"net/netip"
	"strings"
)

const (
	errNone  = Error("the connection does not begin with a header")
	errLong  = Error("a header that is longer than allowed")
	errShort = Error("a header that is too short for its addresses")
	errLine  = Error("a line that does not end in CR LF")
	errTLV   = Error("a TLV that reaches beyond the header")
)

// Parse reads the header that p begins with, and answers its length. It answers ErrMore where p is the beginning of one, and
// an Error as soon as p can't become one. Nothing of the Header is part of p.
func Parse(p []byte) (h Header, n int, err error) {
	switch {
	case len(p) == 0:
		return Header{}, 0, ErrMore
	case p[0] == signature[0]:
		h, n, err = parse2(p)
	default:
		h, n, err = parse1(p)
	}
	if err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// begins reports whether p begins with s, as far as it goes.
func begins(p []byte, s string) bool {
	n := min(len(p), len(s))
	return string(p[:n]) == s[:n]
}

const proxy = "PROXY "

func parse1(p []byte) (Header, int, error) {
	if !begins(p, proxy) {
		return Header{}, 0, errNone
	}
	if word := p[min(len(p), len(proxy)):]; !begins(word, "TCP4 ") && !begins(word, "TCP6 ") && !begins(word, "UNKNOWN") {
		return Header{}, 0, Error("a protocol other than TCP4, TCP6 and UNKNOWN")
	}
	// A lone CR or LF ends the line for some receivers, and not for others.
	i := bytes.IndexAny(p[:min(len(p), MaxV1)], "\r\n")
	switch {
	case i < 0 && len(p) >= MaxV1, i == MaxV1-1:
		return Header{}, 0, errLong
	case i < 0:
		return Header{}, 0, ErrMore
	case p[i] == '\n':
		return Header{}, 0, errLine
	case i+1 == len(p):
		return Header{}, 0, ErrMore
	case p[i+1] != '\n':
		return Header{}, 0, errLine
	}
	h, err := parseLine(string(p[len(proxy):i]))
	return h, i + 2, err
}

func parseLine(line string) (Header, error) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "UNKNOWN":
		return Header{Version: 1, Kind: Unknown}, nil // the rest says nothing
	case "TCP4", "TCP6":
	default: // cut short
		return Header{}, Error("a protocol other than TCP4, TCP6 and UNKNOWN")
	}
	fields := strings.Split(rest, " ")
	if len(fields) != 4 {
		return Header{}, Error("a line that does not hold two addresses and two ports, one space apart")
	}
	h := Header{Version: 1, Kind: TCP}
	ends := [2]*netip.AddrPort{&h.Source, &h.Destination}
	for i, end := range ends {
		// Without zones, and with leading zeros in no decimal number, as ParseAddr has it.
		addr, err := netip.ParseAddr(fields[i])
		if err != nil || addr.Zone() != "" || addr.Is6() != (word == "TCP6") {
			return Header{}, Error("an address that is not one of " + word)
		}
		port, ok := parsePort(fields[2+i])
		if !ok {
			return Header{}, Error("a port that is not a number from 0 to 65535")
		}
		*end = netip.AddrPortFrom(addr, port)
	}
	return h, nil
}

func parsePort(s string) (uint16, bool) {
	if s == "" || len(s) > 5 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return uint16(n), n <= 0xffff
}

// parse2 refuses what is wrong as soon as it is there: a receiver waits for nothing that could not help.
func parse2(p []byte) (Header, int, error) {
	if !begins(p, signature) {
		return Header{}, 0, errNone
	}
	if len(p) > 12 && p[12] != 0x20 && p[12] != 0x21 {
		return Header{}, 0, Error("a version other than 2, or a command other than LOCAL and PROXY")
	}
	if len(p) < 14 {
		return Header{}, 0, ErrMore
	}
	h := Header{Version: 2, Kind: Local}
	need := 0 // bytes of addresses
	if p[12] == 0x21 {
		switch p[13] {
		case 0x00:
			h.Kind = Unknown
		case 0x11, 0x21:
			h.Kind = TCP
		case 0x12, 0x22:
			h.Kind = UDP
		case 0x31:
			h.Kind = Unix
		case 0x32:
			h.Kind = UnixDatagram
		default:
			return Header{}, 0, Error("a family or transport that is not known")
		}
		need = [...]int{0, 12, 36, 2 * pathLength}[p[13]>>4]
	}
	if len(p) < fixed {
		return Header{}, 0, ErrMore
	}
	length := int(p[14])<<8 | int(p[15])
	switch {
	case fixed+length > MaxV2:
		return Header{}, 0, errLong
	case length < need:
		return Header{}, 0, errShort
	case len(p) < fixed+length:
		return Header{}, 0, ErrMore
	}
	p = p[:fixed+length]
	if h.Kind == Local {
		return h, len(p), nil // the sender may have put anything there
	}
	h.addresses(p[fixed : fixed+need])
	return h, len(p), h.tlvs(p, fixed+need)
}

func (h *Header) addresses(p []byte) {
	switch h.Kind {
	case TCP, UDP:
		n := (len(p) - 4) / 2
		source, _ := netip.AddrFromSlice(p[:n])
		destination, _ := netip.AddrFromSlice(p[n : 2*n])
		p = p[2*n:]
		h.Source = netip.AddrPortFrom(source, uint16(p[0])<<8|uint16(p[1]))
		h.Destination = netip.AddrPortFrom(destination, uint16(p[2])<<8|uint16(p[3]))
	case Unix, UnixDatagram:
		h.SourcePath, h.DestinationPath = cString(p[:pathLength]), cString(p[pathLength:])
	}
}

// tlvs reads those that follow the first n bytes of the header p.
func (h *Header) tlvs(p []byte, n int) error {
	var seen [256]bool
	rest := bytes.Clone(p[n:])
	for count := 0; len(rest) > 0; count++ {
		if len(rest) < 3 {
			return errTLV
		}
		t, length := Type(rest[0]), int(rest[1])<<8|int(rest[2])
		rest = rest[3:]
		if length > len(rest) {
			return errTLV
		}
		value := rest[:length:length]
		rest = rest[length:]
		switch {
		case count == maxTLVs:
			return Error("more TLVs than allowed")
		case seen[t] && t.once():
			return Error("two TLVs of a type that says one thing")
		case t == TypeUniqueID && length > maxUniqueID, t == TypeSSL && length < minSSL, t == TypeCRC32C && length != 4:
			return Error("a TLV whose length its type does not have")
		}
		seen[t] = true
		switch t {
		case TypeNoop:
		case TypeCRC32C:
			if err := checksum(p, len(p)-len(rest)-4); err != nil {
				return err
			}
			h.Checksum = true
		default:
			h.TLVs = append(h.TLVs, TLV{t, value})
		}
	}
	return nil
}

// checksum compares the one at offset at of the header p with what it has to be.
func checksum(p []byte, at int) error {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, p[:at])
	sum = crc32.Update(sum, table, make([]byte, 4)) // in place of itself
	sum = crc32.Update(sum, table, p[at+4:])
	if got := uint32(p[at])<<24 | uint32(p[at+1])<<16 | uint32(p[at+2])<<8 | uint32(p[at+3]); got != sum {
		return Error("a checksum that is not that of the header")
	}
	return nil
}
