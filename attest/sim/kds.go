package sim

import (
	"bytes"
	"context"
	"encoding/pem"
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
const KDSService = "sim-amd-kds"

// KDS serves this platform's endorsements under the paths of AMD's service.
func (p *Platform) KDS() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		list, err := p.endorse(r.URL)
		switch {
		case err != nil:
			http.Error(w, "internal error", http.StatusInternalServerError)
		case list == nil:
			http.NotFound(w, r)
		case strings.HasSuffix(r.URL.Path, "/cert_chain"):
			w.Header().Set("Content-Type", "application/x-pem-file")
			var out bytes.Buffer
			for _, e := range list {
				_ = pem.Encode(&out, &pem.Block{Type: blockCertificate, Bytes: e.Raw})
			}
			_, _ = w.Write(out.Bytes())
		default:
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(list[0].Raw)
		}
	})
}

// Endorser answers for the simulated service, and for AMD's, without a network.
func (p *Platform) Endorser() attest.Endorser { return endorser{p} }

type endorser struct{ platform *Platform }

// Endorse implements attest.Endorser.
func (e endorser) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	missing := &attest.Error{Code: attest.CodeEndorsementMissing, Check: "endorsements", Want: ref.Service + ref.Path}
	if err := ctx.Err(); err != nil {
		return nil, &attest.Error{Code: attest.CodeEndorserUnreachable, Check: "endorsements", Err: err}
	}
	u, err := url.ParseRequestURI(ref.Path)
	if err != nil || ref.Service != KDSService && ref.Service != snp.KDSService {
		return nil, missing
	}
	list, err := e.platform.endorse(u)
	if err == nil && list == nil {
		err = missing
	}
	return list, err
}

// endorse finds what the path names; it answers nil when there is no such thing.
func (p *Platform) endorse(u *url.URL) ([]attest.Endorsement, error) {
	parts := strings.Split(u.Path, "/") // "", "vcek", "v1", "Genoa", rest
	if len(parts) != 5 || parts[1] != "vcek" && parts[1] != "vlek" || parts[2] != "v1" || parts[3] != p.model.line {
		return nil, nil
	}
	a := p.authority
	switch rest := parts[4]; {
	case rest == "crl":
		list, err := p.crl()
		return []attest.Endorsement{{Kind: attest.KindCRL, Raw: list}}, err
	case rest == "cert_chain":
		issuer := a.ask
		if parts[1] == "vlek" {
			issuer = a.asv
		}
		return []attest.Endorsement{{Kind: attest.KindCertificate, Raw: issuer.Raw}, {Kind: attest.KindCertificate, Raw: p.ARK()}}, nil
	case parts[1] == "vcek" && rest == fmt.Sprintf("%x", a.chipID()):
		tcb, ok := p.queryTCB(u.Query())
		if !ok {
			return nil, nil
		}
		der, err := a.leaf(tcb, "", p.config.Now())
		return []attest.Endorsement{{Kind: attest.KindCertificate, Raw: der}}, err
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
