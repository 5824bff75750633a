// Package message holds the heads of HTTP messages as a proxy passes them on: what they mean (RFC 9110), whichever version
// of HTTP they came in. What is of one connection only never gets into it.
package message

import "strings"

// Field is one header or trailer field. Name keeps the case in which it came; comparing ignores case.
type Field struct {
	Name, Value string
	Secret      bool // it came as one that no table of HPACK may ever hold (RFC 7541 section 7.1.3)
}

// Fields are in the order in which they came.
type Fields []Field

// Get answers the value of the first field called name.
func (f Fields) Get(name string) (string, bool) {
	for i := range f {
		if Same(f[i].Name, name) {
			return f[i].Value, true
		}
	}
	return "", false
}

// Remove answers f without the fields that match names. It reuses f's memory.
func (f Fields) Remove(match func(name string) bool) Fields {
	kept := f[:0]
	for _, field := range f {
		if !match(field.Name) {
			kept = append(kept, field)
		}
	}
	return kept
}

// Same reports whether two names of fields are the same: ASCII letters match in either case.
func Same(a, b string) bool {
	return len(a) == len(b) && (a == b || strings.EqualFold(a, b))
}

// Length of a body where it is not a number of bytes.
const (
	NoBody  int64 = -1 // the message has none, and no Content-Length
	Unknown int64 = -2 // it ends when it ends
)

// Version of HTTP.
type Version uint8

// The versions that are spoken.
const (
	HTTP10 Version = 10
	HTTP11 Version = 11
	HTTP2  Version = 20
)

// Request is the head of a request.
type Request struct {
	Method    string // a token, in the case in which it came
	Scheme    string // "http" or "https" where the client named one, else ""
	Authority string // Host or :authority; "" only where HTTP/1.0 had none
	Path      string // path and query as they came; "*" of OPTIONS; "" of CONNECT
	Upgrade   string // the protocol asked for by Upgrade, or by :protocol of an extended CONNECT (RFC 8441); "" for none
	Fields    Fields // end to end: neither Host nor Content-Length nor what belongs to one connection
	Length    int64  // of the body in bytes, NoBody or Unknown
	Expect    bool   // the client waits for 100 (Continue) before it sends the body
	Trailers  bool   // the client understands trailers (TE: trailers)
	Version   Version
}

// Response is the head of a response, informational ones included.
type Response struct {
	Status  int    // 100 to 999
	Reason  string // of HTTP/1, as it came
	Upgrade string // the protocol of 101, else ""
	Fields  Fields // end to end, as in a Request
	// Length of the body in bytes, NoBody or Unknown. A response to HEAD, and 304, may say a length that the body would have
	// had: whether a body follows is for Bodiless to say.
	Length int64
}

// Informational reports whether another response follows. 101 is a last one.
func (r *Response) Informational() bool { return r.Status < 200 && r.Status != 101 }

// Bodiless reports whether no body follows whatever the head says (RFC 9112 section 6.3).
func (r *Response) Bodiless(method string) bool {
	return method == "HEAD" || r.Status < 200 || r.Status == 204 || r.Status == 304 || method == "CONNECT" && r.Status/100 == 2
}
