package sim

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Machine is a simulated machine of any TEE, with one guest. It is safe for concurrent use.
type Machine interface {
	// Attester makes Evidence of format "sim-" and the TEE's, with its endorsements stapled.
	attest.Attester
	// Root names the simulated root as a policy does: "sha256:" and the hex digest of the root certificate's DER, or of
	// the SubjectPublicKeyInfo's where the TEE has a bare key.
	Root() string
	// Endorser answers for the vendor's services, by their own names and by their simulated ones, without a network.
	Endorser() attest.Endorser
	// Service serves the machine's endorsements under the paths of the vendor's services.
	Service() http.Handler
	// String describes the machine for a log line, and says SIMULATED.
	fmt.Stringer
}

// kind is one TEE that can be simulated.
type kind struct {
	// name is the TEE's in a spec, and the Format of its hardware's Evidence.
	name string
	// syntax is what follows "sim:" in a spec, and the keys of the TEE's own.
	syntax string
	// open makes a machine.
	open func(*Spec) (Machine, error)
	// check finds what open would refuse, where opening takes long; nil where it does not.
	check func(*Spec) error
	// root finds the DER of the root that Evidence claims to be under. Nothing of it is trusted. It must tell the root of
	// this TEE from that of another one that a Verifier would also take.
	root func(*attest.Evidence) ([]byte, error)
	// verifier makes the verifier of hardware that trusts this root alone.
	verifier func(root []byte) (attest.Verifier, error)
}

// kinds is the table of what can be simulated; the first is what a bare "sim" means.
func kinds() []kind {
	return []kind{
		snpKind(),
		tdxKind(),
		sgxKind(),
		tpmKind(),
		azureSNPKind(),
		nitroKind(),
		ccaKind(),
	}
}

const simulated = "sim-"

func (k *kind) format() attest.Format { return attest.Format(simulated + k.name) }

func kindWhere(is func(*kind) bool) *kind {
	for _, k := range kinds() {
		if is(&k) {
			return &k
		}
	}
	return nil
}

// Spec describes a simulated machine; ParseSpec makes one.
type Spec struct {
	TEE     string
	Product string // what followed the TEE: a product or generation of the vendor
	Host
	options []option
}

// option is KEY=VALUE.
type option struct{ key, value string }

// Syntax is what ParseSpec understands of every TEE.
func Syntax() string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return "sim[:TEE[:PRODUCT]][,KEY=VALUE...] with TEE one of " + strings.Join(names, ", ") + " and the keys " + hostSyntax +
		", and those of the TEE, which sim:TEE,help lists"
}

// usage says what a TEE understands of its own.
func (k *kind) usage() string { return "sim:" + k.syntax + ", and " + hostSyntax }

// ParseSpec reads the command line's description of a simulated machine; see Syntax. What the TEE itself makes of its keys
// shows when the machine is opened.
func ParseSpec(s string) (*Spec, error) {
	head, options, _ := strings.Cut(s, ",")
	parts := strings.Split(head, ":")
	spec := &Spec{TEE: kinds()[0].name}
	if len(parts) > 1 {
		spec.TEE = parts[1]
	}
	if len(parts) > 2 {
		spec.Product = parts[2]
	}
	if parts[0] != "sim" || len(parts) > 3 || len(parts) == 3 && parts[2] == "" || spec.kind() == nil {
		return nil, usage(attest.Quote(head), Syntax())
	}
	seen := map[string]bool{}
	for options != "" {
		var o string
		o, options, _ = strings.Cut(options, ",")
		key, value, ok := strings.Cut(o, "=")
		if !ok || value == "" || seen[key] {
			return nil, usage(attest.Quote(o), "each KEY=VALUE once: "+spec.kind().usage())
		}
		seen[key] = true
		switch want, err := spec.Host.set(key, value); {
		case err != nil:
			return nil, usage(attest.Quote(o), want)
		case want == "":
			spec.options = append(spec.options, option{key, value})
		}
	}
	return spec, nil
}

// Open makes the machine that the spec describes, and on first use of its directory a root.
func (s *Spec) Open() (Machine, error) {
	k, completed := s.kind(), *s
	if k == nil {
		return nil, usage("TEE "+attest.Quote(s.TEE), Syntax())
	}
	if err := completed.complete(); err != nil {
		return nil, err
	}
	return k.open(&completed)
}

// Check reports what Open would refuse in the spec itself, without a file.
func (s *Spec) Check() error {
	k, completed := s.kind(), *s
	if k == nil {
		return usage("TEE "+attest.Quote(s.TEE), Syntax())
	}
	completed.Dir = ""
	if err := completed.complete(); err != nil {
		return err
	}
	if k.check != nil {
		return k.check(&completed)
	}
	_, err := k.open(&completed)
	return err
}

func (s *Spec) kind() *kind {
	return kindWhere(func(k *kind) bool { return k.name == s.TEE })
}

// Open makes the machine that spec describes. Its keys are kept in dir unless the spec names another directory, and in
// memory only where neither does.
func Open(spec, dir string, clock func() time.Time) (Machine, error) {
	s, err := ParseSpec(spec)
	if err != nil {
		return nil, err
	}
	if s.Dir == "" {
		s.Dir = dir
	}
	s.Now = clock
	return s.Open()
}

func usage(got, want string) *attest.Error {
	return &attest.Error{Code: attest.CodeUsage, Check: "sim", Got: got, Want: want}
}
