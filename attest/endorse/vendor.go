package endorse

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// The vendors' own services.
const (
	DefaultAMD          = "https://kdsintf.amd.com"
	DefaultIntel        = "https://api.trustedservices.intel.com"
	DefaultIntelRootCRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
)

// Services as verifiers name them in an attest.Ref, and the prefix of their simulated forms.
const (
	amdService   = "amd-kds"
	intelService = "intel-pcs"
	simulated    = "sim-"
)

const intelRootCRL = "/sgx/certification/v4/rootcacrl"

// Hosts says whom to ask. An empty address is the vendor's own. Evidence never has a say in it.
type Hosts struct {
	AMD   string // base URL of the Key Distribution Service or a mirror
	Intel string // base URL of the Provisioning Certification Service (PCS) or a cache of it (PCCS)
	// IntelRootCRL is the whole URL of the revocation list of Intel's root. Intel has it at another host than the rest; where
	// Intel names a cache, an empty one means that cache.
	IntelRootCRL string
}

// vendor describes one vendor's service: what can be asked, where, and how an answer is read.
type vendor struct {
	service  string
	base     string
	official bool // the vendor itself, which is never asked about simulated platforms
	routes   []route
}

// route is one kind of request.
type route struct {
	kind attest.Kind
	path *regexp.Regexp
	// named is set where the path has identifiers that come out of evidence.
	named bool
	// at replaces base and path where a vendor has this at another host.
	at   string
	host *host
	// read decodes an answer.
	read func(body []byte, header http.Header) ([]attest.Endorsement, error)
}

func amd(base string) vendor {
	return vendor{service: amdService, base: base, official: base == DefaultAMD, routes: []route{
		{kind: attest.KindCertificate, path: whole(`/(vcek|vlek)/v1/[A-Za-z0-9]{1,32}/cert_chain`), read: binaries(attest.KindCertificate)},
		{kind: attest.KindCertificate, path: whole(`/vcek/v1/[A-Za-z0-9]{1,32}/[0-9a-f]{16,128}\?([a-z]{2,5}SPL=[0-9]{2,3}&?){1,8}`), named: true, read: binaries(attest.KindCertificate)},
		{kind: attest.KindCRL, path: whole(`/(vcek|vlek)/v1/[A-Za-z0-9]{1,32}/crl`), read: binaries(attest.KindCRL)},
	}}
}

// intel describes version 4 of the PCS API. Issuer chains come in headers.
func intel(base, rootCRL string) vendor {
	const v4 = `/(sgx|tdx)/certification/v4/`
	return vendor{service: intelService, base: base, official: base == DefaultIntel, routes: []route{
		{kind: attest.KindTCBInfo, path: whole(v4 + `tcb\?fmspc=[0-9a-fA-F]{12}`), named: true, read: documents(attest.KindTCBInfo, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain")},
		{kind: attest.KindQEIdentity, path: whole(v4 + `qe/identity`), read: documents(attest.KindQEIdentity, "SGX-Enclave-Identity-Issuer-Chain", "Enclave-Identity-Issuer-Chain")},
		{kind: attest.KindCRL, path: whole(`/sgx/certification/v4/pckcrl\?ca=(platform|processor)&encoding=der`), read: binaries(attest.KindCRL, "SGX-PCK-CRL-Issuer-Chain")},
		{kind: attest.KindCRL, path: whole(intelRootCRL), at: rootCRL, read: binaries(attest.KindCRL)},
	}}
}

func whole(pattern string) *regexp.Regexp { return regexp.MustCompile(`\A` + pattern + `\z`) }

func (v *vendor) route(ref attest.Ref) *route {
	for i := range v.routes {
		if r := &v.routes[i]; r.kind == ref.Kind && r.path.MatchString(ref.Path) {
			return r
		}
	}
	return nil
}

// url is where r asks for path.
func (v *vendor) url(r *route, path string) string {
	if r.at != "" {
		return r.at
	}
	return v.base + path
}

// binaries reads an answer in DER, PEM or hex, all of it of one kind, and the issuer chain where a header has one.
func binaries(kind attest.Kind, headers ...string) func([]byte, http.Header) ([]attest.Endorsement, error) {
	return func(body []byte, header http.Header) ([]attest.Endorsement, error) {
		list, err := parsePart(body, kind)
		if err != nil {
			return nil, err
		}
		chain, err := issuerChain(header, headers)
		return append(list, chain...), err
	}
}

// documents reads an answer that is signed JSON. Nobody can verify it without its issuer chain.
func documents(kind attest.Kind, headers ...string) func([]byte, http.Header) ([]attest.Endorsement, error) {
	return func(body []byte, header http.Header) ([]attest.Endorsement, error) {
		chain, err := issuerChain(header, headers)
		if len(chain) == 0 {
			err = cmp.Or(err, fmt.Errorf("no issuer chain in header %s", headers[0]))
		}
		return append([]attest.Endorsement{{Kind: kind, Raw: body}}, chain...), err
	}
}

// issuerChain reads certificates out of a header: PEM, percent-encoded.
func issuerChain(header http.Header, names []string) ([]attest.Endorsement, error) {
	for _, name := range names {
		value := header.Get(name)
		if value == "" {
			continue
		}
		text, _ := url.PathUnescape(value) // "+" is a digit of base64 here, not a space; what is badly encoded comes out empty
		list, err := parsePart([]byte(text), attest.KindCertificate)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		return list, nil
	}
	return nil, nil
}

// vendors makes the table of all services out of the configured addresses.
func vendors(h Hosts) ([]vendor, error) {
	a, err := address(h.AMD, DefaultAMD)
	if err != nil {
		return nil, err
	}
	// People name a PCCS by the path that Intel's own clients want.
	i, err := address(strings.TrimSuffix(strings.TrimSuffix(h.Intel, "/"), "/sgx/certification/v4"), DefaultIntel)
	if err != nil {
		return nil, err
	}
	root := i + intelRootCRL
	if i == DefaultIntel {
		root = DefaultIntelRootCRL
	}
	if root, err = address(h.IntelRootCRL, root); err != nil {
		return nil, err
	}
	return []vendor{amd(a), intel(i, root)}, nil
}

// address checks a configured address.
func address(configured, absent string) (string, error) {
	if configured == "" {
		return absent, nil
	}
	u, err := url.Parse(configured)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", &attest.Error{Code: attest.CodeConfigValue, Check: "endorser", Got: fmt.Sprintf("%.100q", configured), Want: "https://HOST[:PORT][/PATH], or http:// for a service on this machine"}
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

func loopback(name string) bool {
	ip, _ := netip.ParseAddr(name)
	return name == "localhost" || ip.IsLoopback()
}
