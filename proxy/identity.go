package proxy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// Headers that the proxy itself sets.
const (
	HeaderResult = "Jurat-Result"            // to the service: what the client proved, a dictionary of RFC 9651
	HeaderXFCC   = "X-Forwarded-Client-Cert" // to the service: the client's certificate, in Envoy's syntax
	HeaderError  = "Jurat-Error"             // to the client: the code of a failure that is the proxy's own answer
)

// identity holds the values for one Result, made once and not for each request.
type identity struct {
	of           *attest.Result
	result, xfcc string
}

// identity is nil when the client proved nothing.
func (l *link) identity() *identity {
	r := l.conn.Result()
	if !r.Affirmed() {
		return nil
	}
	if id := l.forward.Load(); id != nil && id.of == r {
		return id
	}
	id := &identity{of: r, result: resultValue(r)}
	if certs := l.conn.ConnectionState().PeerCertificates; len(certs) > 0 { // which may have changed with the Result
		id.xfcc = xfccValue(certs[0])
	}
	l.forward.Store(id)
	return id
}

// resultValue is r as a dictionary of RFC 9651. A member that is not known is left out.
func resultValue(r *attest.Result) string {
	members := []string{"verdict=" + r.Verdict().String()}
	text := func(key, value string) {
		if value != "" {
			members = append(members, key+"="+sfString(value))
		}
	}
	if c := r.Claims(); c != nil {
		text("tee", c.TEE)
		text("vendor", c.Vendor)
		text("generation", c.Generation)
		if c.Simulated {
			members = append(members, "simulated=?1")
		}
	}
	if r.Level().Valid() {
		members = append(members, "binding="+string(r.Level()))
	}
	text("policy", r.PolicyID())
	if digest := r.EvidenceDigest(); digest != "" {
		text("evidence", "sha256:"+digest)
	}
	members = append(members, "at=@"+strconv.FormatInt(r.Time().Unix(), 10))
	return strings.Join(members, ", ")
}

// sfString is a String of RFC 9651, which holds printable ASCII only.
func sfString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c < ' ' || c > '~':
			continue
		case c == '"' || c == '\\':
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	b.WriteByte('"')
	return b.String()
}

// xfccValue is one element of X-Forwarded-Client-Cert. The names in it are what the peer put into its certificate.
func xfccValue(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	parts := []string{"Hash=" + hex.EncodeToString(sum[:])}
	for _, uri := range cert.URIs {
		parts = appendXFCC(parts, "URI", uri.String())
	}
	for _, name := range cert.DNSNames {
		parts = appendXFCC(parts, "DNS", name)
	}
	return strings.Join(parts, ";")
}

// appendXFCC leaves out what the syntax cannot carry without doubt: control characters would end the header, and it has
// no escape for a backslash, so one before the closing quote would let a name run on into fields of its own making.
func appendXFCC(parts []string, key, value string) []string {
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' || c == '\\' {
			return parts
		}
	}
	if value == "" {
		return parts
	}
	if strings.ContainsAny(value, `,;="`) {
		value = `"` + strings.ReplaceAll(value, `"`, `\"`) + `"`
	}
	return append(parts, key+"="+value)
}
