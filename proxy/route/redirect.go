package route

import (
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/proxy/message"
)

type redirect struct {
	RedirectAction
	rewrite rewriter
}

func (c *compiler) redirect(at string, a *RedirectAction, m *RouteMatch) redirect {
	r := redirect{RedirectAction: *a}
	switch a.Code {
	case 0:
		r.Code = 301
	case 301, 302, 303, 307, 308:
	default:
		c.bad(at+".response_code", strconv.Itoa(a.Code), "301, 302, 303, 307 or 308")
	}
	if a.Scheme != "" && a.Scheme != "http" && a.Scheme != "https" {
		c.bad(at+".scheme_redirect", quote(a.Scheme), "http or https")
	}
	if _, port := cutPort(a.Host); a.Host != "" && (!authority(a.Host) || port != "") {
		c.bad(at+".host_redirect", quote(a.Host), "a host without a port")
	}
	if a.Path != "" {
		path, query := split(a.Path)
		c.path(at+".path_redirect", path, false)
		if _, err := Normalize("/"+query, false); err != nil {
			c.bad(at+".path_redirect", quote(a.Path), "a query without spaces, control characters and #")
		}
		if a.PrefixRewrite != "" || a.RegexRewrite != nil {
			c.bad(at+".path_redirect", "beside a rewrite", "one of them")
		}
	}
	r.rewrite = c.rewrite(at, a.PrefixRewrite, a.RegexRewrite, m)
	if m.Connect {
		c.bad(at, "a redirect of CONNECT", "route or direct_response")
	}
	return r
}

// location answers the URL to go to, for a request that came over scheme.
func (e *entry) location(r *message.Request, scheme string, keepEscapedSlashes bool) (string, error) {
	a := &e.redirect
	path, query := split(r.Path)
	if a.Path != "" {
		replacement, own := split(a.Path)
		path = replacement
		if own != "" {
			query = own
		} else if a.StripQuery {
			query = ""
		}
	} else {
		var err error
		if path, err = a.rewrite.apply(path, &e.match, keepEscapedSlashes); err != nil {
			return "", err
		}
		if a.StripQuery {
			query = ""
		}
	}
	if path == "*" || a.Host == "" && !authority(r.Authority) {
		return "", ErrPath // there is no URL for it
	}
	host, port := cutPort(r.Authority)
	if a.Scheme != "" && a.Scheme != scheme {
		// The default port of one scheme is wrong for the other.
		if scheme == "http" && port == ":80" || scheme == "https" && port == ":443" {
			port = ""
		}
		scheme = a.Scheme
	}
	if a.Host != "" {
		host, port = a.Host, ""
	}
	if a.Port != 0 {
		port = ":" + strconv.Itoa(int(a.Port))
	}
	var out strings.Builder
	for _, s := range []string{scheme, "://", host, port, path, query} {
		out.WriteString(s)
	}
	return out.String(), nil
}
