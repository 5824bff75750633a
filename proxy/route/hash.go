package route

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/proxy/message"
)

// hashPolicy is of a header, a query parameter, a cookie, or, without any of them, the source's address.
type hashPolicy struct {
	header   string
	query    string
	cookie   *CookieHash
	terminal bool
}

func (c *compiler) hash(at string, policies []HashPolicy) []hashPolicy {
	var out []hashPolicy
	for i, p := range policies {
		at := fmt.Sprintf("%s[%d]", at, i)
		c.one(at, "header, query_parameter, cookie and source_ip", p.Header != "", p.QueryParameter != "", p.Cookie != nil, p.SourceIP)
		if p.Header != "" && !token(p.Header) {
			c.bad(at+".header", quote(p.Header), "the name of a header")
		}
		h := hashPolicy{header: p.Header, query: p.QueryParameter, terminal: p.Terminal}
		if p.Cookie != nil {
			cookie := *p.Cookie
			h.cookie = &cookie
			if !token(cookie.Name) {
				c.bad(at+".cookie.name", quote(cookie.Name), "the name of a cookie")
			}
			if strings.ContainsRune(cookie.Path, ';') || !fieldValue(cookie.Path) {
				c.bad(at+".cookie.path", quote(cookie.Path), "a path without semicolons")
			}
		}
		out = append(out, h)
	}
	return out
}

// Hash answers what the choice of an endpoint sticks to, and false where no policy gave anything. Where a cookie is to be
// set, setCookie is the value of a Set-Cookie field for the answer, and random, which no one else may know, makes its value.
func (d Decision) Hash(r *message.Request, source netip.Addr, random uint64) (hash uint64, setCookie string, ok bool) {
	for i := range d.entry.hash {
		p := &d.entry.hash[i]
		var h uint64
		var v string
		var found bool
		switch {
		case p.header != "":
			v, found = field(r, p.header)
			h = sum(v)
		case p.query != "":
			_, query := split(r.Path)
			v, found = parameter(query, p.query)
			h = sum(decoded(v))
		case p.cookie != nil:
			if v, found = cookie(r.Fields, p.cookie.Name); !found && p.cookie.TTL != 0 {
				v, found = strconv.FormatUint(random, 16), true
				setCookie = p.cookie.line(v)
			}
			h = sum(v)
		default:
			b := source.As16() // an IPv4 address is the same one when it is mapped into IPv6
			h, found = sum(b[:]), source.IsValid()
		}
		if !found {
			continue
		}
		hash, ok = bits.RotateLeft64(hash, 1)^h, true
		if p.terminal {
			break
		}
	}
	return hash, setCookie, ok
}

func (c *CookieHash) line(value string) string {
	var b strings.Builder
	b.WriteString(c.Name + "=" + value)
	if c.Path != "" {
		b.WriteString("; Path=" + c.Path)
	}
	if c.TTL > 0 {
		b.WriteString("; Max-Age=" + strconv.FormatInt(int64((c.TTL+time.Second-1)/time.Second), 10))
	}
	b.WriteString("; HttpOnly")
	return b.String()
}

// cookie answers the first cookie called name.
func cookie(f message.Fields, name string) (string, bool) {
	for i := range f {
		if !message.Same(f[i].Name, "cookie") {
			continue
		}
		for rest := f[i].Value; rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, ";")
			key, value, _ := strings.Cut(pair, "=")
			if strings.TrimSpace(key) == name {
				return strings.Trim(strings.TrimSpace(value), `"`), true
			}
		}
	}
	return "", false
}

// sum is FNV-1a, which every proxy of a fleet computes alike, with its bits mixed.
func sum[T string | []byte](s T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
