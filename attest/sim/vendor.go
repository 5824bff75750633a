package sim

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// answer is what a vendor's service has for one address: its body, and the endorsements that the body is made of.
type answer struct {
	contentType  string
	header       [2]string // one more header; empty where there is none
	body         []byte
	endorsements []attest.Endorsement
}

// vendor finds what an address names; it answers nil where there is no such thing.
type vendor func(*url.URL) (*answer, error)

// ServeHTTP implements http.Handler.
func (v vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	a, err := v(r.URL)
	switch {
	case err != nil:
		http.Error(w, "internal error", http.StatusInternalServerError)
	case a == nil:
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Type", a.contentType)
		if a.header[0] != "" {
			w.Header()[a.header[0]] = []string{a.header[1]} // spelt as the vendor spells it
		}
		_, _ = w.Write(a.body)
	}
}

// endorser answers for the named services without a network, by their own names and by their simulated ones.
type endorser struct {
	vendor   vendor
	services []string
}

// Endorse implements attest.Endorser.
func (e endorser) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	missing := &attest.Error{Code: attest.CodeEndorsementMissing, Check: "endorsements", Want: ref.Service + ref.Path}
	if err := ctx.Err(); err != nil {
		return nil, &attest.Error{Code: attest.CodeEndorserUnreachable, Check: "endorsements", Err: err}
	}
	u, err := url.ParseRequestURI(ref.Path)
	if err != nil || !slices.Contains(e.services, strings.TrimPrefix(ref.Service, simulated)) {
		return nil, missing
	}
	a, err := e.vendor(u)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return nil, missing
	}
	return a.endorsements, nil
}

// single answers one endorsement in DER.
func single(kind attest.Kind, raw []byte) *answer {
	return &answer{contentType: "application/octet-stream", body: raw, endorsements: []attest.Endorsement{{Kind: kind, Raw: raw}}}
}

// chain answers certificates in PEM.
func chain(contentType string, ders ...[]byte) *answer {
	a := &answer{contentType: contentType, body: pemChain(ders...)}
	for _, der := range ders {
		a.endorsements = append(a.endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: der})
	}
	return a
}

func pemChain(ders ...[]byte) (out []byte) {
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})...)
	}
	return out
}
