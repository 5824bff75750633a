package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// guard refuses what a web page may have caused, and says to a browser what it may do with an answer.
func guard(addr net.Addr, opts Options, next http.Handler) http.Handler {
	hosts := newHosts(addr, opts)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		switch {
		case !hosts.has(r.Host):
			fail(w, http.StatusForbidden, "the Host of the request is not this server's; connect by localhost or a loopback address, or give the server the name")
		case !sameOrigin(r):
			fail(w, http.StatusForbidden, "the request comes from a page of another origin")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// sameOrigin reports whether no page of another origin caused the request. Programs that are no browsers send neither header.
func sameOrigin(r *http.Request) bool {
	for _, origin := range r.Header["Origin"] {
		if !strings.EqualFold(origin, "http://"+r.Host) {
			return false
		}
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" { // none: typed by the user
			return false
		}
	}
	return true
}

// hosts are the values of Host that are this server's. A page that had its own name resolved to loopback sends that name.
type hosts struct {
	any   bool   // a unix socket: no browser gets there
	port  string // of the listener
	ips   bool   // every address may be this server's
	names map[string]bool
}

func newHosts(addr net.Addr, opts Options) *hosts {
	h := &hosts{names: map[string]bool{}}
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		_, h.any = addr.(*net.UnixAddr)
		return h
	}
	h.port, h.ips = strconv.Itoa(tcp.Port), !tcp.IP.IsLoopback()
	for _, name := range append(opts.Names, "localhost") {
		if _, _, err := net.SplitHostPort(name); err != nil {
			name = net.JoinHostPort(strings.Trim(name, "[]"), h.port)
		}
		h.names[strings.ToLower(name)] = true
	}
	return h
}

func (h *hosts) has(host string) bool {
	if h.any {
		return true
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), "80"
	}
	if h.names[strings.ToLower(net.JoinHostPort(name, port))] {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Zone() == "" && port == h.port && (h.ips || ip.Unmap().IsLoopback())
}
