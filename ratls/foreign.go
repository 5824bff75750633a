package ratls

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/dialect"
)

// nonceSize is the length of the nonces that are sent to peers of other dialects, in bytes.
const nonceSize = 32

// appraiseForeign judges a leaf in which evidence in dialects of others was found. Where our own is in it as well, that counts, and
// the others have to agree with it.
func (rp *RelyingParty) appraiseForeign(ctx context.Context, leaf *x509.Certificate, found []*dialect.Found, peer Peer, now time.Time) (*attest.Result, *attest.Evidence) {
	if slices.ContainsFunc(leaf.Extensions, isOwn) {
		c, err := decode(leaf)
		if err != nil {
			return attest.RefusedResult(err, now), nil
		}
		// DICE has a form for our own evidence: what it shows is then the same.
		found = slices.DeleteFunc(found, func(f *dialect.Found) bool {
			return bytes.Equal(f.Evidence.Raw, c.Evidence.Raw) && slices.Contains(f.ReportData, c.ReportData)
		})
		found = append([]*dialect.Found{{
			Dialect: "jurat", Allowed: true, Evidence: c.Evidence, ReportData: []attest.ReportData{c.ReportData}, Preimage: "SHA-256(claims)",
			Level: attest.LevelKey, Made: leaf.NotBefore, Names: true, Config: c.Config,
		}}, found...)
	}
	checks, err := rp.admitForeign(leaf, found[0], peer, now)
	if err != nil {
		return attest.RefusedResult(err, now), nil
	}
	if rp.pinned {
		for _, f := range found {
			f.Level = attest.LevelPinned
		}
	}
	appraiser, policy := rp.basis()
	return dialect.Appraise(ctx, appraiser, found, policy, now, checks...), found[0].Evidence
}

// admitForeign checks as much of a leaf as the hardware can have signed of it. Where that is no name, who named the dialect knows; who
// did not gets at least a certificate that is for the peer, and for nobody else.
func (rp *RelyingParty) admitForeign(leaf *x509.Certificate, f *dialect.Found, peer Peer, now time.Time) ([]attest.Check, error) {
	switch {
	case !f.Allowed: // which is what is wrong with it
		return nil, nil
	case f.Names, !rp.dialects.Explicit():
		if err := checkAuthority(leaf); err != nil {
			return nil, err
		}
		checks, err := admit(leaf, peer, now)
		for i := range checks {
			if !f.Names {
				checks[i].Source = attest.SourceTLS
			}
		}
		return checks, err
	case f.Subject != "" && !peer.any && f.Subject != peer.name:
		return nil, &attest.Error{Code: attest.CodeName, Check: "binding.name", Got: attest.Quote(f.Subject), Want: peer.name}
	}
	return nil, checkValidity(leaf, now)
}

func isOwn(e pkix.Extension) bool { return e.Id.Equal(cmw.OID()) }

// ask prepares a nonce for peers of a dialect that wants one, and answers how it is sent to a peer of that name.
func (rp *RelyingParty) ask(name string) (known dialect.Context, serverName string, protocols []string) {
	if !rp.dialects.Asks() {
		return dialect.Context{}, name, nil
	}
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce) // which does not fail
	serverName, protocols = rp.dialects.Ask(name, nonce)
	return dialect.Context{Nonce: nonce, Asked: rp.now()}, serverName, protocols
}
