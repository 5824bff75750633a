package dcap_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/test/dcapforge"
)

// Stapled evidence verifies without a service.
func TestStaple(t *testing.T) {
	t.Parallel()
	for kind, f := range kinds {
		m := f.Make(t)
		all := m.Evidence.Endorsements
		q, err := dcap.Parse(m.Evidence.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			have  []attest.Endorsement
			asked int
		}{
			"nothing":            {nil, 4},
			"all":                {all, 0},
			"all but TCB info":   {drop(dcapforge.TCBInfo)(all), 1},
			"all but identity":   {drop(dcapforge.QEIdentity)(all), 1},
			"one list":           {drop(dcapforge.RootCRL)(all), 2},
			"documents and none": {drop(dcapforge.RootCRL, dcapforge.PCKCRL)(all), 2},
		} {
			before := slices.Clone(c.have)
			var asked []attest.Ref
			ev, err := dcap.Staple(t.Context(), &attest.Evidence{Raw: m.Evidence.Raw, Endorsements: c.have, EventLog: []byte("log")}, q, service(all, &asked))
			if err != nil || len(asked) != c.asked || string(ev.EventLog) != "log" {
				t.Errorf("%s, %s: %v, asked %v", kind, name, err, asked)
			}
			if len(c.have) != len(before) {
				t.Errorf("%s, %s: changed its input", kind, name)
			}
			if c.have == nil && len(ev.Endorsements) != 5 {
				t.Errorf("%s, %s: %d endorsements, want the 5 that the quote does not have", kind, name, len(ev.Endorsements))
			}
			v, err := dcap.NewVerifier(m.Roots).Verify(t.Context(), q, ev.Endorsements, nil, dcapforge.Epoch)
			if err != nil || v.Revocation.Problem != nil {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}
}

func TestStapleFails(t *testing.T) {
	t.Parallel()
	m := forge{}.Make(t)
	all := m.Evidence.Endorsements
	bare := &attest.Evidence{Raw: m.Evidence.Raw}
	q, err := dcap.Parse(m.Evidence.Raw)
	if err != nil {
		t.Fatal(err)
	}
	half := func(ref attest.Ref) ([]attest.Endorsement, error) {
		if ref.Kind == attest.KindCRL {
			return nil, errors.New("down")
		}
		return service(all, new([]attest.Ref))(ref)
	}
	ev, err := dcap.Staple(t.Context(), bare, q, endorser(half))
	if attest.CodeOf(err) != attest.CodeEndorserUnreachable || len(ev.Endorsements) != 3 {
		t.Errorf("%d endorsements, %v", len(ev.Endorsements), err)
	}
	many := func(attest.Ref) (list []attest.Endorsement, err error) {
		for i := range 20 {
			list = append(list, attest.Endorsement{Kind: attest.KindCertificate, Raw: []byte{byte(i)}})
		}
		return list, nil
	}
	if ev, err = dcap.Staple(t.Context(), bare, q, endorser(many)); attest.CodeOf(err) != attest.CodeOversized || ev != bare {
		t.Errorf("%v", err)
	}
	for name, f := range map[string]forge{
		"chain":     {Chain: func([]byte) []byte { return nil }},
		"extension": {Extension: func([]dcapforge.Field) []dcapforge.Field { return nil }},
	} {
		m := f.Make(t)
		q, err := dcap.Parse(m.Evidence.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if ev, err := dcap.Staple(t.Context(), m.Evidence, q, nil); attest.CodeOf(err) != attest.CodeMalformedEndorsement || ev != m.Evidence {
			t.Errorf("%s: %v", name, err)
		}
	}
}
