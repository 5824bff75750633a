package message

// Names that say who a client is, up to where they start to vary. A service that trusts any of them trusts its proxy.
var identityNames = [...]string{
	"forwarded", "x-forwarded", "x-real-ip",
	"client-cert", "x-client-cert", "x-client-dn", "x-client-verify",
	"ssl-client", "x-ssl", "x-amzn-mtls", "x-arr-clientcert",
}

// Names that a service may read as one that decides where a message ends, or as a variable of its own environment
// (CVE-2016-5385). Spelt with hyphens the first two are net/http's to deal with, and never among the headers.
var misreadNames = [...]string{"transfer-encoding", "content-length", "proxy"}

// Identifies reports whether a service could take the header for a statement about the client. Many servers hand headers
// on as variables in which every character but letters and digits becomes the same underscore, so jurat_result and
// Jurat.Result are Jurat-Result to them. The same goes for what it could take for a statement about the message.
func Identifies(name string) bool {
	if Ours(name) {
		return true
	}
	for _, misread := range misreadNames {
		if Alike(name, misread) {
			return true
		}
	}
	for _, prefix := range identityNames {
		if foldedPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// Ours reports whether name is one of the headers that only a jurat sets, however it is spelt.
func Ours(name string) bool {
	return foldedPrefix(name, "jurat") && (len(name) == len("jurat") || fold(name[len("jurat")]) == '-')
}

// Alike reports whether a service that hands headers on as variables could take one name for the other: X_Role is X-Role to it.
func Alike(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if fold(a[i]) != fold(b[i]) {
			return false
		}
	}
	return true
}

func foldedPrefix(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if fold(name[i]) != prefix[i] {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	default:
		return '-'
	}
}
