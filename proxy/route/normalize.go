package route

import (
	"errors"
	"strings"
)

// ErrPath is the answer to a path that cannot be forwarded without doubt about what it means: 400 (Bad Request).
var ErrPath = errors.New("route: the path has no safe reading")

// Normalize answers target, a path and perhaps a query, with the path in canonical form:
//
//   - Octets that may stand in a path as they are (unreserved, sub-delims, ":" and "@" of RFC 3986) do; all others are
//     percent-encoded in upper case. So paths that decode to the same octets are one.
//   - Dot segments are resolved, and slashes in a row are one.
//
// Refused with ErrPath, because servers differ over them: an encoded slash or backslash, a backslash, control characters,
// encoded or not, spaces, "#", a "%" that encodes nothing, ".." above the root, and dot segments with parameters ("..;x").
// With keepEscapedSlashes, an encoded slash or backslash stays as it is, but where it would make a dot segment of what is
// beside it.
//
// The query stays as it came; spaces, control characters and "#" in it are refused. "*" is canonical. Nothing is decoded
// twice: "%252e" is "%252e", and means the three characters "%2e".
func Normalize(target string, keepEscapedSlashes bool) (string, error) {
	if target == "*" {
		return target, nil
	}
	if target == "" || target[0] != '/' {
		return "", ErrPath
	}
	path, _, _ := strings.Cut(target, "?")
	for i := len(path); i < len(target); i++ {
		if !visible(target[i]) {
			return "", ErrPath
		}
	}
	if canonical(path) {
		return target, nil
	}
	return respell(path, target[len(path):], keepEscapedSlashes)
}

func respell(path, query string, keepEscapedSlashes bool) (string, error) {
	var buf [512]byte
	out, err := escape(buf[:0], path, keepEscapedSlashes)
	if err != nil {
		return "", err
	}
	if out, err = resolve(out); err != nil {
		return "", err
	}
	return string(append(out, query...)), nil
}

// canonical reports whether path certainly is in canonical form. It says so of all ordinary paths.
func canonical(path string) bool {
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c == '/':
			if rest := path[i+1:]; rest != "" && (rest[0] == '/' || rest[0] == '.' && dots(rest)) {
				return false
			}
		case c == '%':
			if i+2 >= len(path) || path[i+1] >= 'a' || path[i+2] >= 'a' {
				return false
			}
			high, low := unhex(path[i+1]), unhex(path[i+2])
			if high < 0 || low < 0 {
				return false
			}
			if d := byte(high<<4 | low); d < ' ' || d == 0x7f || d == '/' || d == '\\' || literal(d) {
				return false
			}
			i += 2
		case !literal(c):
			return false
		}
	}
	return true
}

// dots reports whether path begins with something like a dot segment.
func dots(path string) bool {
	return len(path) == 1 || strings.IndexByte("./;%", path[1]) >= 0
}

// escape appends path with every octet spelt in the one way that is canonical.
func escape(out []byte, path string, keepEscapedSlashes bool) ([]byte, error) {
	for i := 0; i < len(path); i++ {
		c, encoded := path[i], false
		if c == '%' {
			if i+2 >= len(path) {
				return nil, ErrPath
			}
			high, low := unhex(path[i+1]), unhex(path[i+2])
			if high < 0 || low < 0 {
				return nil, ErrPath
			}
			c, encoded = byte(high<<4|low), true
			i += 2
		}
		switch {
		case c < ' ' || c == 0x7f, !encoded && !visible(c), c == '\\' && !encoded:
			return nil, ErrPath
		case encoded && (c == '/' || c == '\\'):
			if !keepEscapedSlashes {
				return nil, ErrPath
			}
			out = appendEscaped(out, c)
		case c == '/' || literal(c):
			out = append(out, c)
		default:
			out = appendEscaped(out, c)
		}
	}
	return out, nil
}

// resolve removes empty and dot segments from path, in place.
func resolve(path []byte) ([]byte, error) {
	out := path[:0]
	for i := 0; i < len(path); {
		end := i + 1 // path[i] is a slash
		for end < len(path) && path[end] != '/' {
			end++
		}
		segment, last := path[i+1:end], end == len(path)
		switch {
		case hidesDots(segment):
			return nil, ErrPath
		case len(segment) == 0, string(segment) == ".":
			if last {
				out = append(out, '/')
			}
		case string(segment) == "..":
			if len(out) == 0 {
				return nil, ErrPath
			}
			for out[len(out)-1] != '/' {
				out = out[:len(out)-1]
			}
			if !last {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, path[i:end]...)
		}
		i = end
	}
	return out, nil
}

// hidesDots reports whether a server that strips parameters or decodes a slash would find a dot segment within segment.
func hidesDots(segment []byte) bool {
	// A part is what comes first, or after an encoded slash, up to parameters or the next one.
	for begin, i := 0, 0; i <= len(segment); i++ {
		slash := i+2 < len(segment) && segment[i] == '%' && (segment[i+1] == '2' && segment[i+2] == 'F' || segment[i+1] == '5' && segment[i+2] == 'C')
		if i < len(segment) && segment[i] != ';' && !slash {
			continue
		}
		if begin >= 0 {
			part := segment[begin:i]
			if (string(part) == "." || string(part) == "..") && len(part) < len(segment) {
				return true
			}
		}
		begin = -1
		if slash {
			begin = i + 3
			i += 2
		}
	}
	return false
}

// visible reports whether c may stand in a target: neither a control character nor a space nor the start of a fragment.
func visible(c byte) bool { return c > ' ' && c != 0x7f && c != '#' }

// literal reports whether c stands for itself in a segment: pchar of RFC 3986.
func literal(c byte) bool { return literals[c] }

var literals = func() (set [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@") {
		set[c] = true
	}
	return set
}()

func appendEscaped(out []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(out, '%', digits[c>>4], digits[c&15])
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
