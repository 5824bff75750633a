package dialect_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/test/dialectforge"
)

// One piece of evidence in the places of two dialects that are both allowed: what the one has signed, the other does not tell by. A thief
// of a key could otherwise put the quote of a dialect that signs the key alone beside claims, or into a certificate, of their own making,
// and have it be new, of another configuration, and for a name.
func TestOneQuoteTwoPromises(t *testing.T) {
	signing := func(b *bench, hash []byte) []byte {
		return b.Quote([64]byte(append(hash, make([]byte, 64-len(hash))...)))
	}
	dice := func(quote, claims []byte) pkix.Extension {
		return pkix.Extension{Id: dialectforge.OIDDICE, Value: dialectforge.Tagged(60000, dialectforge.Bytes(quote), dialectforge.Bytes(claims))}
	}
	own := func(b *bench) []byte {
		b.Names = []string{"a.example"}
		b.NotAfter = b.NotAfter.Truncate(time.Second)
		buffer, err := cmw.Binding{SPKI: b.SPKI(), NotBefore: b.NotBefore, NotAfter: b.NotAfter, DNSNames: b.Names, Config: [32]byte{7}}.Claims()
		if err != nil {
			t.Fatal(err)
		}
		return buffer
	}
	flashbots := func(b *bench) []byte {
		validity := binary.BigEndian.AppendUint64(nil, uint64(b.NotBefore.Unix()))
		return slices.Concat(b.SPKI(), binary.BigEndian.AppendUint64(validity, uint64(b.NotAfter.Unix())), []byte(b.CommonName))
	}
	minute := func(b *bench) []byte { return slices.Concat(sum(b.SPKI()), []byte("2026-11-20T12:00Z")) }
	// others are a quote that two dialects find which are not allowed, beside one that is.
	others := func(b *bench, hash []byte) *x509.Certificate {
		quote := signing(b, hash)
		return b.Certificate(
			pkix.Extension{Id: dialectforge.OIDDICE, Value: b.TaggedEvidence(60000, b.Claims())},
			pkix.Extension{Id: dialectforge.OIDPrivasysTDX, Value: quote}, pkix.Extension{Id: dialectforge.OIDDstack, Value: b.Octets(message("dcap-tdx", quote))})
	}
	for name, c := range map[string]struct {
		tee   string
		allow []string
		make  func(*bench) *x509.Certificate
	}{
		"our claims beside the hash of the key": {"sgx", []string{dialect.DICE, dialect.GramineLegacy}, func(b *bench) *x509.Certificate {
			quote := signing(b, sum(b.SPKI()))
			return b.Certificate(dice(quote, own(b)), pkix.Extension{Id: dialectforge.OIDGramine, Value: quote})
		}},
		"our claims beside a dated hash": {"tdx", []string{dialect.DICE, dialect.AttestedTLS}, func(b *bench) *x509.Certificate {
			claims := own(b)
			quote := signing(b, sha512(flashbots(b)))
			return b.Certificate(dice(quote, claims), pkix.Extension{Id: dialectforge.OIDDstack, Value: b.Octets(message("dcap-tdx", quote))})
		}},
		"our nonce beside the hash of the key": {"sgx", []string{dialect.DICE, dialect.GramineLegacy}, func(b *bench) *x509.Certificate {
			quote := signing(b, sum(b.SPKI()))
			b.Nonce = nonce
			claims := b.Claims(dialectforge.Text("nonce"), dialectforge.Bytes(nonce))
			return b.Certificate(dice(quote, claims), pkix.Extension{Id: dialectforge.OIDGramine, Value: quote})
		}},
		"our claims beside a date": {"tdx", []string{dialect.DICE, dialect.Privasys}, func(b *bench) *x509.Certificate {
			b.NotBefore = b.NotBefore.Truncate(time.Minute)
			quote := signing(b, sha512(minute(b)))
			return b.Certificate(dice(quote, own(b)), pkix.Extension{Id: dialectforge.OIDPrivasysTDX, Value: quote})
		}},
		"the key for Nitro beside that for dstack": {"nitro", []string{dialect.Evervault, dialect.Dstack}, func(b *bench) *x509.Certificate {
			document := b.Nitro(sha512(slices.Concat([]byte("ratls-cert:"), b.SPKI())), nil)
			b.Names = []string{hex.EncodeToString(document) + ".a.example"}
			return b.Certificate(pkix.Extension{Id: dialectforge.OIDDstack, Value: b.Octets(slices.Concat([]byte{0, 2}, dialectforge.Compact(len(document)), document))})
		}},
		"a date of others beside a name of others": {"tdx", []string{dialect.DICE}, func(b *bench) *x509.Certificate {
			return others(b, sha512(flashbots(b)))
		}},
		"a name of others beside a date of others": {"tdx", []string{dialect.DICE}, func(b *bench) *x509.Certificate {
			return others(b, sha512(minute(b)))
		}},
		"a name beside a date": {"tdx", []string{dialect.Privasys, dialect.AttestedTLS}, func(b *bench) *x509.Certificate {
			b.NotBefore = b.NotBefore.Truncate(time.Minute)
			quote := signing(b, sha512(minute(b)))
			return b.Certificate(pkix.Extension{Id: dialectforge.OIDPrivasysTDX, Value: quote}, pkix.Extension{Id: dialectforge.OIDDstack, Value: b.Octets(message("dcap-tdx", quote))})
		}},
		"a date beside the hash of the key": {"tdx", []string{dialect.Privasys, dialect.Dstack}, func(b *bench) *x509.Certificate {
			quote := signing(b, sha512(slices.Concat([]byte("ratls-cert:"), b.SPKI())))
			return b.Certificate(pkix.Extension{Id: dialectforge.OIDPrivasysTDX, Value: quote}, pkix.Extension{Id: dialectforge.OIDDstackQuote, Value: b.Octets(quote)})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.tee)
			leaf := c.make(b)
			r, seen := b.judge(dialect.Shown{Leaf: leaf}, dialect.Context{Nonce: b.Nonce}, c.allow...)
			if r.Affirmed() {
				t.Errorf("affirmed, made %s, configuration %x", seen.Made, seen.Config)
			}
			refused(t, r, attest.CodeReportData)
		})
	}
}

// message is Flashbots' in JSON.
func message(kind string, quote []byte) []byte {
	return fmt.Appendf(nil, `{"attestation_type":%q,"attestation":[%s]}`, kind, strings.Trim(strings.ReplaceAll(fmt.Sprint(quote), " ", ","), "[]"))
}

// Of two that are allowed the one that binds more strongly counts, wherever it stands in the table.
func TestStrongestCounts(t *testing.T) {
	b := newBench(t, "tdx")
	b.Nonce = nonce
	b.NotBefore = b.NotBefore.Truncate(time.Minute)
	privasys := b.Privasys().Extensions
	b.Extra = privasys[len(privasys)-1:]
	r, _ := b.judge(dialect.Shown{Leaf: b.DICE()}, asked(b), dialect.Privasys, dialect.DICE)
	if !r.Affirmed() || r.Level() != attest.LevelNonce || dialect.DialectOf(r) != dialect.DICE {
		t.Errorf("%s at level %s: %v", dialect.DialectOf(r), r.Level(), r.Err())
	}
}

// Bytes that one dialect reads as a quote and another as a report are two pieces of evidence: they have to hold as both.
func TestOneQuoteTwoFormats(t *testing.T) {
	b := newBench(t, "sgx")
	raw := make([]byte, 0x4a0)
	copy(raw, b.Quote([64]byte{1}))
	r, err := dialect.NewReader(dialect.C8s, dialect.GramineLegacy)
	if err != nil {
		t.Fatal(err)
	}
	leaf := b.Certificate(pkix.Extension{Id: dialectforge.OIDC8s, Value: c8s(t, 1, raw, nil)}, pkix.Extension{Id: dialectforge.OIDGramine, Value: raw})
	if found, err := r.Read(dialect.Shown{Leaf: leaf}, dialect.Context{}); err != nil || len(found) != 2 {
		t.Errorf("%v, %+v", err, found)
	}
}

// Where two dialects tell the same by one piece of evidence, what either leaves unsigned is.
func TestOneQuoteUnsigned(t *testing.T) {
	b := newBench(t, "tdx")
	quote := b.Quote([64]byte(append(sha384(b.SPKI()), make([]byte, 16)...)))
	leaf := b.Certificate(pkix.Extension{Id: dialectforge.OIDC8s, Value: c8s(t, 2, quote, nil)}, pkix.Extension{Id: dialectforge.OIDDstackQuote, Value: b.Octets(quote)})
	r, err := dialect.NewReader(dialect.C8s, dialect.Dstack)
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Read(dialect.Shown{Leaf: leaf}, dialect.Context{})
	if err != nil || len(found) != 1 || len(found[0].Unsigned) != 3 {
		t.Fatalf("%v, %+v", err, found)
	}
	if res, _ := b.judge(dialect.Shown{Leaf: leaf}, dialect.Context{}, dialect.C8s, dialect.Dstack); !res.Affirmed() {
		t.Error(res.Err())
	}
}
