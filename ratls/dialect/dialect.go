package dialect

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Bounds, enforced before anything is parsed.
const (
	MaxExtension = 128 << 10 // bytes of one extension
	MaxDocument  = 1 << 20   // bytes of a document
	MinNonce     = 16        // bytes of a nonce that counts as one
)

// Shown is what somebody shows of itself.
type Shown struct {
	// Leaf is the certificate whose key TLS has proven; beside a Document it is the one that the document is for. Nil where none
	// was seen.
	Leaf *x509.Certificate
	// Request is a certificate request, whose signature the caller has checked.
	Request *x509.CertificateRequest
	// Document is an attestation document.
	Document []byte
}

// Context is what the relying party itself knows. Nothing of it comes from the peer.
type Context struct {
	Nonce []byte    // that it sent; nil for none
	Asked time.Time // when it made Nonce, or Request
	// Exporter is the TLS exporter (RFC 8446 section 7.5) of its connection; nil where there is none.
	Exporter func(label string, context []byte, size int) ([]byte, error)
	Suite    uint16 // of that connection
	// Request is the certificate_request_context that it sent (RFC 9261).
	Request []byte
	HPKE    []byte   // the HPKE key that it expects in a document; nil where the certificate is to tell
	AppKey  [32]byte // SHA-256 of the application's key that it expects in a document; zero for none
}

// nonce is the relying party's, nil where it is not long enough to be one.
func (c *Context) nonce() []byte {
	if len(c.Nonce) < MinNonce {
		return nil
	}
	return c.Nonce
}

// Found is what one dialect found. Nothing in it has been verified.
type Found struct {
	Dialect  string // its name; several, where they read the same evidence
	Allowed  bool   // the relying party named it
	Evidence *attest.Evidence
	// What the hardware has to have signed: one of ReportData, each a whole; or, where there is none, Signed, which are SHA-256
	// digests by the names that attest.ExpectSigned takes.
	ReportData []attest.ReportData
	Signed     map[string][32]byte
	Preimage   string       // in words, such as "SHA-256(SPKI)"
	Level      attest.Level // reached if the hardware has
	Made       time.Time    // when the evidence was made, by what the hardware has to have signed; zero when that does not tell
	// Names says that the hardware signed the alternative names and the validity of the leaf, and Subject that it signed this name.
	Names    bool
	Subject  string
	Config   [32]byte // digest of a measured configuration, which the report data commits to
	Unsigned []string // what came along and nobody signed

	from []asn1.ObjectIdentifier // extensions that were read
}

// Expect is what f expects the hardware to have signed.
func (f *Found) Expect() attest.Expectation {
	if len(f.ReportData) > 0 {
		return attest.ExpectOneOf(f.Level, f.Made, f.ReportData...).WithConfig(f.Config).Unsigned(f.Unsigned...)
	}
	return attest.ExpectSigned(f.Level, f.Made, f.Signed).Unsigned(f.Unsigned...)
}

// Dialect is one way to show Evidence.
type Dialect interface {
	// Name is what a relying party allows it by.
	Name() string
	// Read finds evidence and what is expected of it. It answers ErrAbsent for what is not of this dialect, and otherwise an
	// *attest.Error.
	Read(Shown, Context) (*Found, error)
}

// Asker is a Dialect whose nonce travels in the client's first message.
type Asker interface {
	// Ask answers the server name and the additional application protocols that carry the nonce to a peer that is called name.
	Ask(name string, nonce []byte) (serverName string, protocols []string)
}

// ErrAbsent is what a Dialect answers where nothing that is shown is of it.
var ErrAbsent = errors.New("dialect: nothing of this dialect")

// Names of the dialects.
const (
	DICE          = "dice"
	SGXSDK        = "sgx-sdk"
	GramineLegacy = "gramine-legacy"
	OpenEnclave   = "openenclave"
	EGo           = "ego"
	Constellation = "constellation"
	Contrast      = "contrast"
	Dstack        = "dstack"
	AttestedTLS   = "attested-tls"
	Privasys      = "privasys"
	C8s           = "c8s"
	Cocos         = "cocos"
	Evervault     = "evervault"
	Nitriding     = "nitriding"
	Tinfoil       = "tinfoil"
	Enarx         = "enarx"
)

// entry is a Dialect of the table.
type entry struct {
	name string
	read func(Shown, Context) (*Found, error)
}

// Name implements Dialect.
func (e entry) Name() string { return e.name }

// Read implements Dialect.
func (e entry) Read(s Shown, c Context) (*Found, error) {
	f, err := e.read(s, c)
	if err != nil {
		return nil, err
	}
	f.Dialect = e.name
	return f, nil
}

// asking is an entry that is an Asker.
type asking struct {
	entry
	ask func(name string, nonce []byte) (string, []string)
}

// Ask implements Asker.
func (a asking) Ask(name string, nonce []byte) (string, []string) { return a.ask(name, nonce) }

// All are the dialects that are read, those first that a relying party is to prefer where levels are equal.
func All() []Dialect {
	return []Dialect{
		entry{Cocos, readCocos},
		asking{entry{Contrast, readContrast}, askContrast},
		asking{entry{Constellation, readConstellation}, askConstellation},
		asking{entry{Evervault, readEvervault}, askEvervault},
		entry{AttestedTLS, readAttestedTLS},
		entry{Privasys, readPrivasys},
		entry{DICE, readDICE},
		entry{SGXSDK, readSGXSDK},
		entry{Dstack, readDstack},
		entry{C8s, readC8s},
		entry{EGo, readEGo},
		entry{OpenEnclave, readOpenEnclave},
		entry{GramineLegacy, readGramineLegacy},
		entry{Enarx, readEnarx},
		entry{Tinfoil, readTinfoil},
		entry{Nitriding, readNitriding},
	}
}

// aliases are other names of what is the same on the wire.
func aliases() map[string]string {
	return map[string]string{
		"interoperable-ra-tls": DICE, "gramine": DICE, "rats-tls": DICE, "tng": DICE,
		"cvm-reverse-proxy": Constellation,
	}
}

// Known are the names that NewReader takes, aliases among them.
func Known() []string {
	names := slices.Collect(maps.Keys(aliases()))
	for _, d := range All() {
		names = append(names, d.Name())
	}
	slices.Sort(names)
	return names
}

// Reader reads what is shown in the dialects that a relying party allows. A nil Reader allows DICE alone. It is immutable.
type Reader struct {
	allowed  []string
	explicit bool
}

// NewReader allows dialects by their names; without any, DICE alone, whose certificates then have to be for the name that the
// peer is known by.
func NewReader(names ...string) (*Reader, error) {
	r := &Reader{explicit: len(names) > 0}
	for _, n := range names {
		name := n
		if other, ok := aliases()[n]; ok {
			name = other
		}
		if !slices.ContainsFunc(All(), func(d Dialect) bool { return d.Name() == name }) {
			return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "dialects", Got: fmt.Sprintf("%.40q", n), Want: "one of " + strings.Join(Known(), ", ")}
		}
		r.allowed = append(r.allowed, name)
	}
	return r, nil
}

// Explicit reports whether the relying party has named dialects: it then knows that the hardware signs no names in them.
func (r *Reader) Explicit() bool { return r != nil && r.explicit }

// Allows reports whether the relying party takes evidence in a dialect.
func (r *Reader) Allows(name string) bool {
	if !r.Explicit() {
		return name == DICE
	}
	return slices.Contains(r.allowed, name)
}

// Asks reports whether an allowed dialect wants a nonce in the client's first message.
func (r *Reader) Asks() bool {
	return slices.ContainsFunc(All(), func(d Dialect) bool { _, ok := d.(Asker); return ok && r.Allows(d.Name()) })
}

// Ask answers how the first allowed dialect that wants one has the nonce sent to a peer that is called name.
func (r *Reader) Ask(name string, nonce []byte) (serverName string, protocols []string) {
	for _, d := range All() {
		if a, ok := d.(Asker); ok && r.Allows(d.Name()) {
			return a.Ask(name, nonce)
		}
	}
	return name, nil
}

// Read answers what all dialects find in what is shown, the strongest that is allowed first, and those that are not allowed last. It
// is empty where nothing is of any. Its errors are *attest.Error.
func (r *Reader) Read(s Shown, c Context) ([]*Found, error) {
	if err := s.bounded(); err != nil {
		return nil, err
	}
	var all []*Found
	var failed error // of an allowed dialect, if one of those did: others may read the same place
	for _, d := range All() {
		allowed := r.Allows(d.Name())
		f, err := d.Read(s, c)
		switch {
		case errors.Is(err, ErrAbsent):
		case err != nil && allowed:
			return nil, in(d.Name(), true, err)
		case err != nil:
			failed = cmp.Or(failed, in(d.Name(), false, err))
		default:
			f.Allowed = allowed
			all = join(all, f)
		}
	}
	if failed = cmp.Or(failed, unread(s)); failed != nil {
		return nil, failed
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].before(all[j]) })
	return all, critical(s, all)
}

// before reports whether f is to count rather than g: it is allowed and g is not, or else it is bound more strongly.
func (f *Found) before(g *Found) bool {
	if f.Allowed != g.Allowed {
		return f.Allowed
	}
	return !g.Level.AtLeast(f.Level)
}

func notAllowed(name string) error {
	return &attest.Error{Code: attest.CodeDialect, Check: "binding.dialect", Got: name, Want: "a dialect that is allowed by name"}
}

// in says which dialect an error is about. Where that is not allowed, that is what is wrong in the first place.
func in(name string, allowed bool, err error) error {
	var coded *attest.Error
	if !errors.As(err, &coded) {
		return &attest.Error{Code: attest.CodeInternal, Check: "evidence", Got: name, Err: err}
	}
	if !allowed {
		refused := notAllowed(name).(*attest.Error)
		refused.Err = coded
		return refused
	}
	said := *coded
	said.Got = strings.TrimSuffix(name+": "+said.Got, ": ")
	return &said
}

// alike reports whether f and g tell the same of a certificate, whichever of their hashes the hardware has signed.
func (f *Found) alike(g *Found) bool {
	return f.Level == g.Level && f.Made.Equal(g.Made) && f.Names == g.Names && f.Subject == g.Subject // a configuration comes with names
}

// join adds f to all. Two dialects that find the same evidence are one finding where both are allowed, or neither, and tell the same:
// which of their hashes the hardware signed shows when it is verified. Where they tell different things, both hashes have to be signed,
// which is to say that it is refused: what one of them tells must not pass by the hash of the other. Where only one is allowed, the
// other adds nothing.
func join(all []*Found, f *Found) []*Found {
	for i, g := range all {
		if g.Evidence.Format != f.Evidence.Format || !bytes.Equal(g.Evidence.Raw, f.Evidence.Raw) {
			continue
		}
		switch {
		case g.Allowed != f.Allowed:
			if f.Allowed {
				all[i] = f
			}
			return all
		case g.alike(f) && min(len(g.ReportData), len(f.ReportData)) > 0:
			g.from = append(g.from, f.from...)
			for _, data := range f.ReportData {
				if !slices.Contains(g.ReportData, data) {
					g.ReportData = append(g.ReportData, data)
				}
			}
			for _, what := range f.Unsigned {
				if !slices.Contains(g.Unsigned, what) {
					g.Unsigned = append(g.Unsigned, what)
				}
			}
			if !slices.Contains(strings.Split(g.Preimage, " or "), f.Preimage) {
				g.Preimage += " or " + f.Preimage
			}
			g.Dialect += " or " + f.Dialect
			return all
		}
	}
	return append(all, f)
}

// critical refuses critical extensions that no allowed dialect has read: their issuer demands that they be understood.
func critical(s Shown, all []*Found) error {
	for _, id := range s.demanded() {
		if !slices.ContainsFunc(all, func(f *Found) bool { return f.Allowed && slices.ContainsFunc(f.from, id.Equal) }) {
			return &attest.Error{Code: attest.CodeCriticalExtension, Check: "evidence", Got: id.String()}
		}
	}
	return nil
}

// demanded are the critical extensions that are not among those of X.509 itself, whose arc is 2.5.29.
func (s *Shown) demanded() (ids []asn1.ObjectIdentifier) {
	switch {
	case s.Leaf != nil:
		return s.Leaf.UnhandledCriticalExtensions
	case s.Request != nil:
		for _, e := range s.Request.Extensions {
			if e.Critical && !below(e.Id, asn1.ObjectIdentifier{2, 5, 29}) {
				ids = append(ids, e.Id)
			}
		}
	}
	return ids
}

// unread refuses evidence that is known by its place and not read: what it says is not known, and it may contradict the rest.
func unread(s Shown) error {
	for _, known := range []struct {
		arc  asn1.ObjectIdentifier
		name string
	}{
		{asn1.ObjectIdentifier{1, 2, 840, 113741, 1337}, "Intel's RA-TLS white paper"},
		{asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 12345}, "Telegram Cocoon, under a number that is nobody's"},
	} {
		for _, e := range s.extensions() {
			if below(e.Id, known.arc) {
				return &attest.Error{Code: attest.CodeUnknownFormat, Check: "evidence", Got: e.Id.String() + " (" + known.name + ")", Want: "a dialect that is read"}
			}
		}
	}
	return nil
}

func below(id, arc asn1.ObjectIdentifier) bool { return len(id) > len(arc) && id[:len(arc)].Equal(arc) }

func (s *Shown) bounded() error {
	if len(s.Document) > MaxDocument {
		return &attest.Error{Code: attest.CodeOversized, Check: "evidence", Got: fmt.Sprintf("a document of %d bytes", len(s.Document)), Want: fmt.Sprintf("at most %d", MaxDocument)}
	}
	for _, e := range s.extensions() {
		if len(e.Value) > MaxExtension {
			return &attest.Error{Code: attest.CodeOversized, Check: "evidence", Got: fmt.Sprintf("extension %s of %d bytes", e.Id, len(e.Value)), Want: fmt.Sprintf("at most %d", MaxExtension)}
		}
	}
	return nil
}

// extensions are those of the certificate or the request. Where there is a document, that is where evidence is.
func (s *Shown) extensions() []pkix.Extension {
	switch {
	case s.Document != nil:
		return nil
	case s.Leaf != nil:
		return s.Leaf.Extensions
	case s.Request != nil:
		return s.Request.Extensions
	}
	return nil
}

// extension answers the one with this identifier, nil where there is none.
func (s *Shown) extension(id asn1.ObjectIdentifier) (*pkix.Extension, error) {
	var found *pkix.Extension
	for _, e := range s.extensions() {
		if !e.Id.Equal(id) {
			continue
		}
		// crypto/x509 refuses repeated extensions of certificates; were it to stop, which of two counts would be the attacker's choice.
		if found != nil {
			return nil, &attest.Error{Code: attest.CodeDuplicateExtension, Check: "evidence", Got: id.String()}
		}
		found = &e
	}
	return found, nil
}

// spki is the DER of the public key in question, nil where none is known.
func (s *Shown) spki() []byte {
	switch {
	case s.Leaf != nil:
		return s.Leaf.RawSubjectPublicKeyInfo
	case s.Request != nil:
		return s.Request.RawSubjectPublicKeyInfo
	}
	return nil
}
