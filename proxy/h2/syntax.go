package h2

// Classes of characters.
const (
	tokenChar  = 1 << iota // of a method (RFC 9110 section 5.6.2)
	nameChar               // of a field's name: a token without upper case (RFC 9113 section 8.2.1)
	valueChar              // of a field's value: no control but the tab (RFC 9110 section 5.5)
	targetChar             // of a path: neither control, nor space, nor "#"
	hostChar               // of an authority: no "@", no "/" (RFC 9113 section 8.3.1)
)

func class(c byte) (k byte) {
	letter := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
	upper := 'A' <= c && c <= 'Z'
	in := func(s string) bool {
		for i := range len(s) {
			if s[i] == c {
				return true
			}
		}
		return false
	}
	mark := in("!#$%&'*+-.^_`|~")
	if letter || upper || mark {
		k |= tokenChar
	}
	if letter || mark {
		k |= nameChar
	}
	if c >= ' ' && c != 0x7f || c == '\t' {
		k |= valueChar
	}
	if c > ' ' && c != 0x7f && c != '#' {
		k |= targetChar
	}
	if letter || upper || in("!$%&'()*+,-.:;=[]_~") {
		k |= hostChar
	}
	return k
}

// classes is a table of what class answers; nothing writes to it.
var classes = func() (t [256]byte) {
	for i := range t {
		t[i] = class(byte(i))
	}
	return t
}()

func consists(s string, of byte) bool {
	for i := range len(s) {
		if classes[s[i]]&of == 0 {
			return false
		}
	}
	return true
}

func validToken(s string) bool { return s != "" && consists(s, tokenChar) }

func validName(s string) bool { return s != "" && consists(s, nameChar) }

func validValue(s string) bool {
	if s == "" {
		return true
	}
	blank := func(c byte) bool { return c == ' ' || c == '\t' }
	return !blank(s[0]) && !blank(s[len(s)-1]) && consists(s, valueChar)
}

func validHost(s string) bool { return s != "" && consists(s, hostChar) }

func validPath(s, method string) bool {
	return s != "" && (s[0] == '/' && consists(s, targetChar) || s == "*" && method == "OPTIONS")
}

// ofConnection reports whether a field belongs to a connection of HTTP/1 and is malformed here (RFC 9113 section 8.2.2).
func ofConnection(name string) bool {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// length reads the value of Content-Length (RFC 9110 section 8.6): one number, no list.
func length(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, true
}
