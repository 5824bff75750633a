package dcap_test

import (
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/test/dcapforge"
)

// service answers like Intel's, out of the endorsements of forged evidence, and notes what it was asked.
func service(all []attest.Endorsement, asked *[]attest.Ref) endorser {
	pick := func(at ...int) (list []attest.Endorsement) {
		for _, i := range at {
			list = append(list, all[i])
		}
		return list
	}
	return func(ref attest.Ref) ([]attest.Endorsement, error) {
		*asked = append(*asked, ref)
		switch ref.Kind {
		case attest.KindTCBInfo:
			return pick(dcapforge.TCBInfo, dcapforge.TCBCert, dcapforge.RootCert), nil
		case attest.KindQEIdentity:
			return pick(dcapforge.QEIdentity, dcapforge.TCBCert, dcapforge.RootCert), nil
		case attest.KindCRL:
			if ref.Path == "/sgx/certification/v4/rootcacrl" {
				return pick(dcapforge.RootCRL), nil
			}
			return pick(dcapforge.PCKCRL, dcapforge.CACert, dcapforge.RootCert), nil
		}
		return nil, errors.New("unexpected")
	}
}

func paths(refs []attest.Ref) (list []string) {
	for _, r := range refs {
		list = append(list, r.Service+r.Path)
	}
	return list
}

// What evidence does not carry is asked for, at addresses of verified fields alone.
func TestEndorser(t *testing.T) {
	t.Parallel()
	for kind, f := range kinds {
		m := f.Make(t)
		want := []string{
			"intel-pcs/tdx/certification/v4/tcb?fmspc=b0c06f000000", "intel-pcs/tdx/certification/v4/qe/identity",
			"intel-pcs/sgx/certification/v4/rootcacrl", "intel-pcs/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
		}
		if f.SGX {
			want[0], want[1] = "intel-pcs/sgx/certification/v4/tcb?fmspc=b0c06f000000", "intel-pcs/sgx/certification/v4/qe/identity"
			want[3] = "intel-pcs/sgx/certification/v4/pckcrl?ca=processor&encoding=der"
		}
		all := m.Evidence.Endorsements
		m.Evidence.Endorsements = nil
		var asked []attest.Ref
		v, err := verify(t, m, service(all, &asked))
		if err != nil || v.Revocation.Problem != nil || !slices.Equal(paths(asked), want) {
			t.Errorf("%s: %v, %v, want %v", kind, err, paths(asked), want)
		}
		// What it carries is not asked for.
		m.Evidence.Endorsements = all
		asked = nil
		if _, err := verify(t, m, service(all, &asked)); err != nil || len(asked) != 0 {
			t.Errorf("%s: %v, %v", kind, err, asked)
		}
	}
}

// Stapled collateral that is no longer, or not yet, current is replaced by what the endorser has.
func TestStale(t *testing.T) {
	t.Parallel()
	soon := set("issueDate", "2026-11-02T00:00:00Z")
	past := set("nextUpdate", "2026-10-31T00:00:00Z")
	for name, c := range map[string]struct {
		change func(*forge)
		at     int
	}{
		"TCB info expired":          {func(f *forge) { f.Info = past }, dcapforge.TCBInfo},
		"TCB info not yet valid":    {func(f *forge) { f.Info = soon }, dcapforge.TCBInfo},
		"QE identity expired":       {func(f *forge) { f.Identity = past }, dcapforge.QEIdentity},
		"QE identity not yet valid": {func(f *forge) { f.Identity = soon }, dcapforge.QEIdentity},
	} {
		f := forge{}
		c.change(&f)
		m := f.Make(t)
		kind := m.Evidence.Endorsements[c.at].Kind
		fresh := slices.Clone(m.Evidence.Endorsements)
		fresh[c.at] = forge{}.Document(kind, nil, m.TCBKey)
		var asked []attest.Ref
		if _, err := verify(t, m, service(fresh, &asked)); err != nil || len(asked) != 1 || asked[0].Kind != kind {
			t.Errorf("%s: %v, asked %v", name, err, asked)
		}
		// An endorser that has nothing better, or nothing, leaves the answer at what is stale.
		for what, ask := range map[string]attest.Endorser{
			"the same":  service(m.Evidence.Endorsements, &asked),
			"nothing":   nil,
			"no answer": endorser(func(attest.Ref) ([]attest.Endorsement, error) { return nil, errors.New("down") }),
			"another":   endorser(func(attest.Ref) ([]attest.Endorsement, error) { return fresh[dcapforge.TCBCert:], nil }),
		} {
			_, err := verify(t, m, ask)
			var e *attest.Error
			if bad := wants(err, attest.CodeEndorsementExpired); bad != nil || !errors.As(err, &e) || e.Got == "" || e.Want == "" {
				t.Errorf("%s, endorser has %s: %v", name, what, bad)
			}
		}
		// Nor does one that has only what is stale, where nothing is stapled.
		all := m.Evidence.Endorsements
		m.Evidence.Endorsements = drop(c.at)(all)
		if _, err := verify(t, m, service(all, &asked)); attest.CodeOf(err) != attest.CodeEndorsementExpired {
			t.Errorf("%s, from the endorser: %v", name, err)
		}
	}
}

func TestEndorserFails(t *testing.T) {
	t.Parallel()
	m := forge{}.Make(t)
	all := m.Evidence.Endorsements
	other := forge{Info: set("fmspc", "00806F050000")}.Make(t).Evidence.Endorsements
	for name, c := range map[string]struct {
		code   attest.Code
		answer func() ([]attest.Endorsement, error)
	}{
		"error without a code": {attest.CodeEndorserUnreachable, func() ([]attest.Endorsement, error) { return nil, errors.New("down") }},
		"error with a code": {attest.CodeEndorserRefused, func() ([]attest.Endorsement, error) {
			return nil, &attest.Error{Code: attest.CodeEndorserRefused, Check: "x"}
		}},
		"nothing":                 {attest.CodeEndorsementMissing, func() ([]attest.Endorsement, error) { return nil, nil }},
		"TCB info without signer": {attest.CodeEndorsementMissing, func() ([]attest.Endorsement, error) { return all[:1], nil }},
		"under another root":      {attest.CodeChain, func() ([]attest.Endorsement, error) { return other, nil }},
		"junk": {attest.CodeMalformedEndorsement, func() ([]attest.Endorsement, error) {
			return []attest.Endorsement{{Kind: attest.KindTCBInfo, Raw: nil}, all[dcapforge.TCBCert]}, nil
		}},
		"more than is to be read": {attest.CodeOversized, func() ([]attest.Endorsement, error) { return slices.Repeat(all, 4), nil }},
		"the other TEE's TCB info": {attest.CodeEndorsementMissing, func() ([]attest.Endorsement, error) {
			return []attest.Endorsement{all[dcapforge.TCBCert], forge{SGX: true}.Document(attest.KindTCBInfo, nil, m.TCBKey)}, nil
		}},
	} {
		m.Evidence.Endorsements = drop(dcapforge.TCBInfo)(all)
		_, err := verify(t, m, endorser(func(attest.Ref) ([]attest.Endorsement, error) { return c.answer() }))
		if bad := wants(err, c.code); bad != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
}

// Of several documents for this platform the one of the latest evaluation counts, if it is current, and of those the one
// that was issued last.
func TestSeveralDocuments(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change []func(map[string]any)
		want   uint64
	}{
		"two evaluations":              {[]func(map[string]any){set("tcbEvaluationDataNumber", 18), set("tcbEvaluationDataNumber", 19)}, 19},
		"two evaluations, later first": {[]func(map[string]any){set("tcbEvaluationDataNumber", 19), set("tcbEvaluationDataNumber", 18)}, 19},
		"the latest is expired": {[]func(map[string]any){func(m map[string]any) {
			m["tcbEvaluationDataNumber"], m["nextUpdate"] = 19, "2026-10-31T00:00:00Z"
		}, set("tcbEvaluationDataNumber", 18)}, 18},
		"the latest is expired, and last": {[]func(map[string]any){set("tcbEvaluationDataNumber", 18), func(m map[string]any) {
			m["tcbEvaluationDataNumber"], m["nextUpdate"] = 19, "2026-10-31T00:00:00Z"
		}}, 18},
	} {
		for at, kind := range map[int]attest.Kind{dcapforge.TCBInfo: attest.KindTCBInfo, dcapforge.QEIdentity: attest.KindQEIdentity} {
			m := forge{}.Make(t)
			list := drop(at)(m.Evidence.Endorsements)
			for _, change := range c.change {
				list = append(list, forge{}.Document(kind, change, m.TCBKey))
			}
			m.Evidence.Endorsements = list
			// The claim is the lower of both documents'; the other one has 20 or 21.
			if v, err := verify(t, m, nil); err != nil || v.Evaluation != c.want {
				t.Errorf("%s of %s: %+v, %v", name, kind, v, err)
			}
		}
	}
}

// What Intel judges anew under the same evaluation number supersedes what it said before, wherever it stands in the list.
func TestLaterOfOneEvaluation(t *testing.T) {
	t.Parallel()
	level := func(issued, status string) func(map[string]any) {
		return func(m map[string]any) {
			m["issueDate"] = issued
			for _, l := range m["tcbLevels"].([]any) {
				l.(map[string]any)["tcbStatus"] = status
			}
		}
	}
	before, after := level("2026-10-30T00:00:00Z", "UpToDate"), level("2026-10-31T00:00:00Z", "Revoked")
	for name, order := range map[string][]func(map[string]any){"later last": {before, after}, "later first": {after, before}} {
		for at, kind := range map[int]attest.Kind{dcapforge.TCBInfo: attest.KindTCBInfo, dcapforge.QEIdentity: attest.KindQEIdentity} {
			m := forge{}.Make(t)
			list := drop(at)(m.Evidence.Endorsements)
			for _, change := range order {
				list = append(list, forge{}.Document(kind, change, m.TCBKey))
			}
			m.Evidence.Endorsements = list
			if _, err := verify(t, m, nil); attest.CodeOf(err) != attest.CodeTCBRevoked {
				t.Errorf("%s of %s: %v", name, kind, err)
			}
		}
	}
}

// When Intel renews its signing certificate each document verifies by its own, and each signer is judged.
func TestTwoSigners(t *testing.T) {
	t.Parallel()
	make := func(serial int64) dcapforge.Made {
		m := forge{RootCRL: revokes(77)}.Make(t)
		der, key := m.Signer(t, serial)
		list := append(m.Evidence.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: der})
		list[dcapforge.QEIdentity] = forge{}.Document(attest.KindQEIdentity, nil, key)
		m.Evidence.Endorsements = list
		return m
	}
	if _, err := verify(t, make(5), nil); err != nil {
		t.Error(err)
	}
	if _, err := verify(t, make(77), nil); attest.CodeOf(err) != attest.CodeRevoked {
		t.Errorf("the second signer is revoked: %v", err)
	}
}

// A revocation list that is missing or stale is for the policy to judge; one that the endorser has is used.
func TestRevocation(t *testing.T) {
	t.Parallel()
	down := endorser(func(attest.Ref) ([]attest.Endorsement, error) { return nil, errors.New("down") })
	for name, at := range map[string]int{"root's": dcapforge.RootCRL, "PCK authority's": dcapforge.PCKCRL} {
		good := forge{}.Make(t)
		all := good.Evidence.Endorsements
		good.Evidence.Endorsements = drop(at)(all)
		for what, c := range map[string]struct {
			ask  attest.Endorser
			code attest.Code
		}{
			"no endorser": {nil, attest.CodeEndorsementMissing},
			"down":        {down, attest.CodeEndorserUnreachable},
			"empty":       {endorser(func(attest.Ref) ([]attest.Endorsement, error) { return nil, nil }), attest.CodeEndorsementMissing},
			"junk": {endorser(func(attest.Ref) ([]attest.Endorsement, error) {
				return []attest.Endorsement{{Kind: attest.KindCRL}}, nil
			}), attest.CodeEndorsementMissing},
			"there": {service(all, new([]attest.Ref)), ""},
		} {
			v, err := verify(t, good, c.ask)
			if err != nil {
				t.Errorf("%s list, %s: %v", name, what, err)
				continue
			}
			if p := v.Revocation.Problem; attest.CodeOf(asError(p)) != c.code || p != nil && (p.Check == "" || p.Want == "" && p.Err == nil) {
				t.Errorf("%s list, %s: %+v", name, what, p)
			}
		}
		// Stale ones.
		stale, fresh := forge{RootCRL: outdated}, all
		if at == dcapforge.PCKCRL {
			stale = forge{PCKCRL: outdated}
		}
		m := stale.Make(t)
		v, err := verify(t, m, down)
		if err != nil || v.Revocation.Problem == nil || v.Revocation.Problem.Code != attest.CodeEndorsementExpired {
			t.Errorf("stale %s list: %+v, %v", name, v, err)
		}
		good.Evidence.Endorsements = drop(at)(fresh)
		if v, err = verify(t, good, service(fresh, new([]attest.Ref))); err != nil || v.Revocation.Problem != nil {
			t.Errorf("%s list from the endorser: %+v, %v", name, v, err)
		}
	}
}

func asError(e *attest.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// reissued is evidence with one list stapled, and another in the endorser's hands.
func TestListFromEndorser(t *testing.T) {
	t.Parallel()
	dates := func(issued, expires int) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ThisUpdate, l.NextUpdate = dcapforge.Epoch.AddDate(0, 0, issued), dcapforge.Epoch.AddDate(0, 0, expires)
		}
	}
	both := func(hooks ...func(*x509.RevocationList)) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			for _, h := range hooks {
				h(l)
			}
		}
	}
	for name, c := range map[string]struct {
		stapled, fetched func(*x509.RevocationList)
		code             attest.Code
		problem          attest.Code
	}{
		"newer and current":   {dates(-60, -30), dates(-1, 29), "", ""},
		"newer and revokes":   {dates(-60, -30), both(dates(-1, 29), revokes(3)), attest.CodeRevoked, ""},
		"older and revokes":   {dates(-60, -30), both(dates(-90, -60), revokes(3)), attest.CodeRevoked, ""},
		"older, both expired": {dates(-60, -30), dates(-90, -60), "", attest.CodeEndorsementExpired},
		"not yet valid":       {dates(1, 30), dates(-1, 29), "", attest.CodeEndorsementExpired},
	} {
		m := forge{PCKCRL: c.stapled}.Make(t)
		fetched := m.Reissue(t, c.fetched)
		v, err := verify(t, m, endorser(func(attest.Ref) ([]attest.Endorsement, error) {
			return []attest.Endorsement{{Kind: attest.KindCRL, Raw: fetched}}, nil
		}))
		if attest.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && attest.CodeOf(asError(v.Revocation.Problem)) != c.problem {
			t.Errorf("%s: %+v", name, v.Revocation)
		}
	}
	// An endorser that has none leaves the answer at the stale one.
	m := forge{PCKCRL: dates(-60, -30)}.Make(t)
	v, err := verify(t, m, endorser(func(attest.Ref) ([]attest.Endorsement, error) { return nil, nil }))
	if err != nil || attest.CodeOf(asError(v.Revocation.Problem)) != attest.CodeEndorsementExpired {
		t.Errorf("%+v, %v", v, err)
	}
	// Of two lists that are stapled the latest counts.
	m = forge{PCKCRL: dates(-60, -30)}.Make(t)
	m.Evidence.Endorsements = append(m.Evidence.Endorsements, attest.Endorsement{Kind: attest.KindCRL, Raw: m.Reissue(t, dates(-2, 20))})
	for range 2 {
		if v, err := verify(t, m, nil); err != nil || v.Revocation.Problem != nil || !v.Revocation.Issued.Equal(dcapforge.Epoch.AddDate(0, 0, -2)) || !v.Judged.Equal(time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%+v, %v", v, err)
		}
		slices.Reverse(m.Evidence.Endorsements)
	}
	// Knowledge expires with the first of the lists, and is as old as the PCK authority's.
	m = forge{RootCRL: dates(-300, 3), PCKCRL: dates(-5, 20)}.Make(t)
	v, err = verify(t, m, nil)
	if err != nil || !v.Revocation.Issued.Equal(dcapforge.Epoch.AddDate(0, 0, -5)) || !v.Revocation.Expires.Equal(dcapforge.Epoch.AddDate(0, 0, 3)) {
		t.Errorf("%+v, %v", v, err)
	}
}

// What verified once is not verified again, and yet judged anew: at another time, with other lists.
func TestRemembered(t *testing.T) {
	t.Parallel()
	for kind, f := range kinds {
		m := f.Make(t)
		v := dcap.NewVerifier(m.Roots)
		at := func(now time.Time, list []attest.Endorsement) error {
			q, err := dcap.Parse(m.Evidence.Raw)
			if err != nil {
				t.Fatal(err)
			}
			_, err = v.Verify(t.Context(), q, list, nil, now)
			return err
		}
		all := m.Evidence.Endorsements
		revoked := slices.Clone(all)
		revoked[dcapforge.PCKCRL].Raw = m.Reissue(t, revokes(3))
		older := append(slices.Clone(all), forge{SGX: f.SGX}.Document(attest.KindTCBInfo, func(in map[string]any) {
			in["tcbEvaluationDataNumber"] = 99
			in["tcbLevels"].([]any)[0].(map[string]any)["tcbStatus"] = "Revoked"
		}, m.TCBKey))
		der, _ := m.Signer(t, 5)
		signer := slices.Clone(all)
		signer[dcapforge.TCBCert].Raw = der
		tampered := slices.Clone(all)
		tampered[0].Raw = bytesOf(`"UpToDate"`, `"UpToDate" `)(slices.Clone(all[0].Raw))
		for range 2 {
			for name, c := range map[string]struct {
				now  time.Time
				list []attest.Endorsement
				code attest.Code
			}{
				"as before":         {dcapforge.Epoch, all, ""},
				"years later":       {dcapforge.Epoch.AddDate(2, 0, 0), all, attest.CodeChainExpired},
				"years earlier":     {dcapforge.Epoch.AddDate(-2, 0, 0), all, attest.CodeChainExpired},
				"a month later":     {dcapforge.Epoch.AddDate(0, 1, 0), all, attest.CodeEndorsementExpired},
				"a month earlier":   {dcapforge.Epoch.AddDate(0, -1, 0), all, attest.CodeEndorsementExpired},
				"revoked":           {dcapforge.Epoch, revoked, attest.CodeRevoked},
				"another judgement": {dcapforge.Epoch, older, attest.CodeTCBRevoked},
				"changed":           {dcapforge.Epoch, tampered, attest.CodeChain},
				"nothing":           {dcapforge.Epoch, nil, attest.CodeEndorsementMissing},
				"another signer":    {dcapforge.Epoch, signer, attest.CodeChain},
				"without signer":    {dcapforge.Epoch, drop(dcapforge.TCBCert)(all), attest.CodeEndorsementMissing},
			} {
				if err := at(c.now, c.list); attest.CodeOf(err) != c.code {
					t.Errorf("%s, %s: %v, want %s", kind, name, err, c.code)
				}
			}
		}
		// The signature over a quote is never remembered.
		raw := slices.Clone(m.Evidence.Raw)
		m.Evidence.Raw = slices.Clone(raw)
		m.Evidence.Raw[m.Signed-1] ^= 1
		if err := at(dcapforge.Epoch, all); attest.CodeOf(err) != attest.CodeSignature {
			t.Errorf("%s: changed report data: %v", kind, err)
		}
	}
}

// Collateral of one root is none under another, though it was remembered.
func TestTwoRoots(t *testing.T) {
	t.Parallel()
	one, two := forge{}.Make(t), forge{}.Make(t)
	roots, err := dcap.NewRoots(one.Root, two.Root)
	if err != nil {
		t.Fatal(err)
	}
	v := dcap.NewVerifier(roots)
	check := func(quote, list dcapforge.Made, code attest.Code) {
		t.Helper()
		q, err := dcap.Parse(quote.Evidence.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = v.Verify(t.Context(), q, list.Evidence.Endorsements, nil, dcapforge.Epoch); attest.CodeOf(err) != code {
			t.Errorf("%v, want %q", err, code)
		}
	}
	check(one, one, "")
	check(two, two, "")
	two.Evidence.Endorsements = drop(dcapforge.RootCert, dcapforge.CACert, dcapforge.RootCRL, dcapforge.PCKCRL)(two.Evidence.Endorsements)
	check(one, two, attest.CodeChain)
	two.Evidence.Endorsements = nil
	check(one, two, attest.CodeEndorsementMissing)
}

// TestWarm fails when something that was verified before is decoded or verified again: each of them takes more than this
// allows. It does not run beside other tests, whose memory would count.
func TestWarm(t *testing.T) {
	for kind, f := range kinds {
		m := f.Make(t)
		v := dcap.NewVerifier(m.Roots)
		q, err := dcap.Parse(m.Evidence.Raw)
		if err != nil {
			t.Fatal(err)
		}
		again := func() {
			if _, err := v.Verify(t.Context(), q, m.Evidence.Endorsements, nil, dcapforge.Epoch); err != nil {
				t.Fatal(err)
			}
		}
		again()
		if n := testing.AllocsPerRun(20, again); n > 40 {
			t.Errorf("%s: %.0f allocations", kind, n)
		}
		renewed := func() { dcap.ForgetBindings(v); again() }
		if n := testing.AllocsPerRun(20, renewed); n > 65 {
			t.Errorf("%s, another attestation key: %.0f allocations", kind, n)
		}
	}
}
