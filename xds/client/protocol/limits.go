package protocol

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jurat-tls/jurat/xds/resource"
)

// Limits bound what a control plane can make a client hold. A field that is 0 stands for its default.
type Limits struct {
	Types     int // types that can be subscribed to: 64
	Names     int // names of one subscription: 200,000
	Resources int // resources of a type, and items of a response: 200,000
	Bytes     int // of all resources together, with 256 for each: 512 MiB
	// Request is how many bytes of names and versions one request of the delta protocol has: 3 MiB, since servers of gRPC refuse
	// messages of more than 4 MiB unless they are told otherwise.
	Request int
}

func (l Limits) orDefault() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{{&l.Types, 64}, {&l.Names, 200_000}, {&l.Resources, 200_000}, {&l.Bytes, 512 << 20}, {&l.Request, 3 << 20}} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	l.Request = max(l.Request, 4*resource.MaxName) // one name fits always
	return l
}

const (
	maxNonce    = 1024
	maxAcks     = 64   // of a type in the delta protocol, before nothing more is read
	maxNonces   = 32   // of a type that are remembered, to know a repeated response
	maxReason   = 4096 // bytes of a refusal
	maxMessage  = 1024 // bytes of what a server says of a resource
	maxRejected = 1000 // resources of a type whose rejection is remembered
	overhead    = 256  // bytes that a resource takes beside its content
	maxAttic    = 1024 // names that nobody wants any more and that may be asked for again
	holdFirst   = 100 * time.Millisecond
	holdMost    = 30 * time.Second
)

// cut shortens what others wrote, and leaves nothing in it that does something to a terminal or a log.
func cut(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if c != '\n' && unicode.In(c, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) || c == utf8.RuneError {
			return '.'
		}
		return c
	}, s[:min(len(s), most)])
	if len(s) > most { // RuneError is longer than the byte it stands for, but '.' is not
		s = s[:most]
	}
	return s
}
