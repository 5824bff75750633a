package nitro

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Roots are trust anchors. The zero value and nil trust nothing.
type Roots struct{ anchors []*link }

// NewRoots makes Roots of exactly the given certificates, in DER.
func NewRoots(certificates ...[]byte) (*Roots, error) {
	roots := new(Roots)
	for _, der := range certificates {
		root, err := parseLink(der)
		if err != nil {
			return nil, err
		}
		// Its own signature adds nothing to the caller's trust.
		if err := root.checkAuthority(0); err != nil {
			return nil, err
		}
		root.id = sha256.Sum256(der)
		roots.anchors = append(roots.anchors, root)
	}
	return roots, nil
}

// awsRoot is AWS_NitroEnclaves_Root-G1, SHA-256 641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b.
const awsRoot = `-----BEGIN CERTIFICATE-----
MIICETCCAZagAwIBAgIRAPkxdWgbkK/hHUbMtOTn+FYwCgYIKoZIzj0EAwMwSTEL
MAkGA1UEBhMCVVMxDzANBgNVBAoMBkFtYXpvbjEMMAoGA1UECwwDQVdTMRswGQYD
VQQDDBJhd3Mubml0cm8tZW5jbGF2ZXMwHhcNMTkxMDI4MTMyODA1WhcNNDkxMDI4
MTQyODA1WjBJMQswCQYDVQQGEwJVUzEPMA0GA1UECgwGQW1hem9uMQwwCgYDVQQL
DANBV1MxGzAZBgNVBAMMEmF3cy5uaXRyby1lbmNsYXZlczB2MBAGByqGSM49AgEG
BSuBBAAiA2IABPwCVOumCMHzaHDimtqQvkY4MpJzbolL//Zy2YlES1BR5TSksfbb
48C8WBoyt7F2Bw7eEtaaP+ohG2bnUs990d0JX28TcPQXCEPZ3BABIeTPYwEoCWZE
h8l5YoQwTcU/9KNCMEAwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQUkCW1DdkF
R+eWw5b6cp3PmanfS5YwDgYDVR0PAQH/BAQDAgGGMAoGCCqGSM49BAMDA2kAMGYC
MQCjfy+Rocm9Xue4YnwWmNJVA44fA0P5W2OpYow9OYCVRaEevL8uO1XYru5xtMPW
rfMCMQCi85sWBbJwKKXdS6BptQFuZbT73o/gBh1qUxl/nNr12UO8Yfwr6wPLb+6N
IwLz3/Y=
-----END CERTIFICATE-----
`

// AWSRoots is the root of the commercial AWS partitions.
func AWSRoots() *Roots {
	block, _ := pem.Decode([]byte(awsRoot))
	if block == nil {
		return nil
	}
	roots, err := NewRoots(block.Bytes)
	if err != nil {
		return nil
	}
	return roots
}

func (r *Roots) find(der []byte) *link {
	if r == nil {
		return nil
	}
	for _, anchor := range r.anchors {
		if bytes.Equal(anchor.Raw, der) {
			return anchor
		}
	}
	return nil
}

// link is a certificate of a chain.
type link struct {
	*x509.Certificate
	key *ecdsa.PublicKey
	id  [32]byte // of the chain that ends here
}

// parseLink decodes one certificate with a key of P-384, the only kind in this hierarchy.
func parseLink(der []byte) (*link, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkChain, Err: err}
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkChain, attest.Quote(cert.Subject.CommonName)+" with another key", "P-384")
	}
	if len(cert.UnhandledCriticalExtensions) != 0 {
		return nil, attest.Refuse(attest.CodeCriticalExtension, checkChain, cert.UnhandledCriticalExtensions[0].String()+" in "+attest.Quote(cert.Subject.CommonName), "")
	}
	return &link{Certificate: cert, key: key}, nil
}

// checkAuthority checks that l may stand above a leaf with below authorities in between (NSM §3.2.3.2, §3.2.3.3).
func (l *link) checkAuthority(below int) error {
	if !l.IsCA || l.KeyUsage&x509.KeyUsageCertSign == 0 {
		return attest.Refuse(attest.CodeChain, checkChain, attest.Quote(l.Subject.CommonName)+" may not sign certificates", "an authority")
	}
	if limited := l.MaxPathLen > 0 || l.MaxPathLenZero; limited && below > l.MaxPathLen {
		return attest.Refuse(attest.CodeChain, checkChain, attest.Quote(l.Subject.CommonName)+" above too many authorities", "")
	}
	return nil
}

// checkLeaf checks that l may sign documents and nothing else.
func (l *link) checkLeaf() error {
	if l.IsCA || l.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return attest.Refuse(attest.CodeChain, checkChain, attest.Quote(l.Subject.CommonName)+" may not sign documents", "a leaf for digital signatures")
	}
	return nil
}

func (l *link) validAt(t time.Time) bool { return !t.Before(l.NotBefore) && !t.After(l.NotAfter) }

func digest(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}
