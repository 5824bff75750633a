package session_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
	"github.com/jurat-tls/jurat/test/tlspair"
)

// The values on the wire are fixed: these were computed by another program.
func TestKnownAnswers(t *testing.T) {
	fill := func(b byte) (out [32]byte) {
		for i := range out {
			out[i] = b
		}
		return out
	}
	leaf := session.Leaf(ea.Server, fill(1), fill(2), fill(3))
	if got := hex.EncodeToString(leaf[:]); got != leafAnswer {
		t.Errorf("leaf %s", got)
	}
	data := session.ReportData(258, fill(4), fill(5))
	if got := hex.EncodeToString(data[:]); got != dataAnswer {
		t.Errorf("report data %s", got)
	}
	for suite, want := range map[uint16]string{tls.TLS_AES_128_GCM_SHA256: binder256, tls.TLS_AES_256_GCM_SHA384: binder384} {
		b := session.Binder(suite, []byte("key"), fill(6))
		if got := strings.TrimRight(hex.EncodeToString(b[:]), "0"); got != strings.TrimRight(want, "0") {
			t.Errorf("binder %s", got)
		}
	}
}

func TestExpectRefuses(t *testing.T) {
	cert := tlspair.Leaf(t, tlspair.Key(t))
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	marshal := func(s cmw.Session) []byte {
		s.Evidence = &attest.Evidence{Format: "test", Raw: []byte("quote")}
		raw, err := cmw.MarshalSession(&s)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	reconnect, err := cmw.MarshalReconnect(&cmw.Reconnect{})
	if err != nil {
		t.Fatal(err)
	}
	good := session.Presented{Sender: ea.Server, Attestation: marshal(cmw.Session{Size: 1}), Asked: time.Now()}
	if _, _, err := good.Expect(leaf); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		p    session.Presented
		code attest.Code
		want string
	}{
		"nothing":                {session.Presented{}, attest.CodeMalformed, ""},
		"a proof":                {session.Presented{Attestation: reconnect}, attest.CodeSessionExchange, "in the place of evidence"},
		"no tree":                {session.Presented{Attestation: marshal(cmw.Session{})}, attest.CodeSessionExchange, "fits no tree"},
		"outside of the tree":    {session.Presented{Attestation: marshal(cmw.Session{Size: 2, Index: 2, Proof: make([]merkle.Hash, 1)})}, attest.CodeSessionExchange, "fits no tree"},
		"a proof that is short":  {session.Presented{Attestation: marshal(cmw.Session{Size: 2})}, attest.CodeSessionExchange, "fits no tree"},
		"an unknown profile":     {session.Presented{Profile: "x", Attestation: good.Attestation}, attest.CodeSessionExchange, "profile"},
		"the other profile":      {session.Presented{Profile: session.ProfileExpat, Attestation: good.Attestation}, attest.CodeUnknownFormat, ""},
		"a proof in the profile": {session.Presented{Profile: session.ProfileExpat, Attestation: reconnect}, attest.CodeUnknownFormat, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ev, want, err := c.p.Expect(leaf)
			code(t, err, c.code)
			if ev != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v", ev, err)
			}
			var coded *attest.Error
			if told := errors.As(err, &coded) && strings.Contains(coded.Hint, "profile"); told != (c.code == attest.CodeUnknownFormat) {
				t.Errorf("hint %q", coded.Hint)
			}
			// What was not understood expects nothing, which no evidence meets.
			r := attest.NewAppraiser(attest.NoEndorser{}).Appraise(t.Context(), &attest.Evidence{Format: "test", Raw: []byte{1}}, want, judgeFunc(accept), time.Now())
			code(t, r.Err(), attest.CodeNoExpectation)
		})
	}
}

const (
	leafAnswer = "c80a1e008aa52567b811674f739204f02a66d01c7a83bb2ec6fe6733c45d77fe"
	dataAnswer = "6ea101d05286d8391b2c70d9b5fd46b6e26e8a4018fd36c72ab55fb08644028c6a737ef38d9a71f22fe58f32b1f462ebab3c7f13883c4454296d53d580c9cc53"
	binder256  = "c09793c0104c4681402b7d95f021afc79a26d0ab02b6d141d85acda7209995c6"
	binder384  = "112d94537d5b721da47d7e2ec5a9a4d86826076fdf96b60d84ab3cb03bbf8f1a8b0a6a376e911b58de4fa8a6c45fcf87"
)
