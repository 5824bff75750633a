package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Defaults of what a file does not say.
const (
	DefaultEvidenceAge    = 24 * time.Hour
	DefaultEndorsementAge = 30 * 24 * time.Hour
)

// Policy is a parsed policy file. The zero value refuses everything.
type Policy struct {
	name string
	id   string

	allow, deny []platform
	platforms   int // line
	tcb         []floor
	workload    workload
	binding     attest.Level
	bindingLine int
	freshness   freshness
	revocation  revocation
}

// platform is one pattern of platforms.allow or platforms.deny. Empty fields match everything.
type platform struct {
	text              string // as written, for the transcript
	line              int
	vendor, tee       string
	generations       []string // any of them; nil for all
	product, stepping string
	root              string // simulated platforms only
	chips             []string
	because           string
	until             time.Time // the rule no longer holds from this moment; zero for ever
}

type floor struct {
	component string
	min       uint64
	line      int
}

type workload struct {
	measurements []reference // any of them
	anyMeasured  bool
	measuredLine int

	debugAny  bool
	debugLine int

	privilege     int
	privilegeLine int

	migrationAny  bool
	migrationLine int
}

// reference is one accepted measurement.
type reference struct {
	value []byte
	name  string
}

type freshness struct {
	evidence, endorsements time.Duration
	line                   int
}

type revocation struct {
	unchecked bool
	line      int
}

// Name is the policy's own name.
func (p *Policy) Name() string { return p.name }

// ID is "sha256:" and the hex digest of the file.
func (p *Policy) ID() string { return p.id }

// Binding is the minimum level.
func (p *Policy) Binding() attest.Level { return p.binding }

// SimulationRoots are the roots of simulated platforms that the policy names, in order.
func (p *Policy) SimulationRoots() []string {
	var roots []string
	for _, r := range p.allow {
		if r.root != "" && !slices.Contains(roots, r.root) {
			roots = append(roots, r.root)
		}
	}
	return roots
}

func identify(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}
