package sim

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
)

// KDSService names the simulated Key Distribution Service in an attest.Ref. The Verifier asks for this service only, so
// that identifiers of simulated chips never reach AMD.
const KDSService = simulated + snp.KDSService

// KDS serves this platform's endorsements under the paths of AMD's service.
func (p *Platform) KDS() http.Handler { return vendor(p.endorse) }

// Service implements Machine.
func (p *Platform) Service() http.Handler { return p.KDS() }

// Endorser answers for the simulated service, and for AMD's, without a network.
func (p *Platform) Endorser() attest.Endorser { return endorser{p.endorse, []string{snp.KDSService}} }

// endorse finds what the path names; it answers nil when there is no such thing.
func (p *Platform) endorse(u *url.URL) (*answer, error) {
	parts := strings.Split(u.Path, "/") // "", "vcek", "v1", "Genoa", rest
	if len(parts) != 5 || parts[1] != "vcek" && parts[1] != "vlek" || parts[2] != "v1" || parts[3] != p.model.line {
		return nil, nil
	}
	a := p.authority
	switch rest := parts[4]; {
	case rest == "crl":
		list, err := p.crl()
		return single(attest.KindCRL, list), err
	case rest == "cert_chain":
		issuer := a.ask
		if parts[1] == "vlek" {
			issuer = a.asv
		}
		return chain("application/x-pem-file", issuer.Raw, a.ark.Raw), nil
	case parts[1] == "vcek" && rest == fmt.Sprintf("%x", a.chipID()):
		tcb, ok := p.queryTCB(u.Query())
		if !ok {
			return nil, nil
		}
		leaf, err := a.leaf(tcb, "", p.config.Now())
		return single(attest.KindCertificate, leaf), err
	}
	return nil, nil
}

func (p *Platform) queryTCB(q url.Values) (tcb [8]byte, ok bool) {
	names := map[string]string{"bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL", "fmc": "fmcSPL"}
	for component, at := range p.model.layout {
		v, err := strconv.ParseUint(q.Get(names[component]), 10, 8)
		if err != nil {
			return tcb, false
		}
		tcb[at] = byte(v)
	}
	return tcb, len(q) == len(p.model.layout)
}
