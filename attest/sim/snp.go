package sim

import (
	"crypto/x509"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
)

func snpKind() kind {
	return kind{
		name:   string(snp.Format),
		syntax: snpSyntax,
		open: func(s *Spec) (Machine, error) {
			cfg, err := snpConfig(s)
			if err != nil {
				return nil, err
			}
			return New(cfg)
		},
		check:    checkSNP,
		root:     snpRoot,
		verifier: snpVerifier,
	}
}

func checkSNP(s *Spec) error {
	cfg, err := snpConfig(s)
	if err == nil {
		_, _, err = cfg.complete()
	}
	return err
}

// snpRoot finds the one ARK among the endorsements. No other TEE has one.
func snpRoot(ev *attest.Evidence) ([]byte, error) {
	ark, err := rootCertificate(ev, func(c *x509.Certificate) bool { return strings.HasPrefix(c.Subject.CommonName, arkPrefix) }, "an ARK among the endorsements")
	if err != nil {
		return nil, err
	}
	return ark.Raw, nil
}

func snpVerifier(root []byte) (attest.Verifier, error) {
	ark, err := x509.ParseCertificate(root)
	if err != nil {
		return nil, err
	}
	roots, err := snp.NewRoots(snp.Root{Generation: strings.ToLower(strings.TrimPrefix(ark.Subject.CommonName, arkPrefix)), ARK: root})
	if err != nil {
		return nil, err
	}
	return snp.NewVerifier(roots), nil
}
