package ear_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/ear"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

var (
	now   = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	by    = ear.Verifier{Developer: "https://jurat.example", Build: "jurat 1.0"}
	nonce = []byte("a nonce of the relying party")
)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type verifier struct{}

func (verifier) Verify(context.Context, *attest.Evidence, attest.Endorser, time.Time) (*attest.Claims, error) {
	return &attest.Claims{Vendor: "amd", TEE: "snp", Product: "EPYC Genoa", Generation: "genoa", ReportData: attest.ReportData{1}}, nil
}

type policy []attest.Check

func (p policy) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "sha256:p", Checks: p}
}

func result(t testing.TB, checks ...attest.Check) *attest.Result {
	t.Helper()
	return attest.NewAppraiser(attest.NoEndorser{}, verifier{}).Appraise(t.Context(), &attest.Evidence{Format: "test", Raw: []byte("x")},
		attest.Expect(attest.ReportData{1}, attest.LevelSession, now), policy(checks), now)
}

func check(id string, s attest.Status, c attest.Code) attest.Check {
	return attest.Check{ID: id, Status: s, Code: c}
}

func affirmed(t testing.TB) *attest.Result {
	return result(t, check("platform.allowed", attest.StatusPass, ""), check("workload.measurement", attest.StatusPass, ""))
}

// forms are the two encodings.
var forms = map[string]struct {
	sign   func(*ear.EAR, *ecdsa.PrivateKey) ([]byte, error)
	verify func([]byte, ear.Trust, time.Time) (*ear.EAR, error)
}{"JWT": {ear.SignJWT, ear.VerifyJWT}, "CWT": {ear.SignCWT, ear.VerifyCWT}}

func TestRoundTrip(t *testing.T) {
	holder := newKey(t, elliptic.P256())
	for name, form := range forms {
		for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
			key, other := newKey(t, curve), newKey(t, curve)
			e, err := ear.New(affirmed(t), by, &holder.PublicKey, nonce, now, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := form.sign(e, key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := form.verify(raw, ear.TrustKeys(&other.PublicKey, &key.PublicKey), now.Add(59*time.Minute))
			if err != nil {
				t.Fatalf("%s %s: %v", name, curve.Params().Name, err)
			}
			if !got.Affirming() || !got.HolderIs(&holder.PublicKey) || got.HolderIs(&key.PublicKey) || !bytes.Equal(got.Nonce, nonce) {
				t.Errorf("%s: got %+v", name, got)
			}
			if got.Appraisal.Binding != "session" || got.Appraisal.Generation != "genoa" || got.Appraisal.Verdict != "affirmed" || got.Appraisal.Evidence == "" {
				t.Errorf("%s: got %+v", name, got.Appraisal)
			}
			if got.Developer != by.Developer || got.Build != by.Build || fmt.Sprint(got.PolicyIDs) != "[sha256:p]" || got.Vector["executables"] != ear.TierAffirming || got.Vector["hardware"] != ear.TierAffirming {
				t.Errorf("%s: got %+v", name, got)
			}
			if _, ok := got.Vector["file-system"]; ok {
				t.Errorf("%s: claims what nobody checked", name)
			}
			for what, verify := range map[string]func() (*ear.EAR, error){
				"expired": func() (*ear.EAR, error) { return form.verify(raw, ear.TrustKeys(&key.PublicKey), now.Add(time.Hour)) },
				"of the future": func() (*ear.EAR, error) {
					return form.verify(raw, ear.TrustKeys(&key.PublicKey), now.Add(-2*time.Minute))
				},
				"of another key": func() (*ear.EAR, error) { return form.verify(raw, ear.TrustKeys(&other.PublicKey), now) },
				"of nobody":      func() (*ear.EAR, error) { return form.verify(raw, ear.Trust{}, now) },
			} {
				want := attest.CodeResultExpired
				if strings.Contains(what, " another") || strings.Contains(what, "nobody") {
					want = attest.CodeResultSigner
				}
				if got, err := verify(); attest.CodeOf(err) != want || got != nil {
					t.Errorf("%s %s: got %v, %v", name, what, got, err)
				}
			}
		}
	}
}

// Not one byte of a token can change.
func TestTampered(t *testing.T) {
	key := newKey(t, elliptic.P256())
	for name, form := range forms {
		e, err := ear.New(affirmed(t), by, &newKey(t, elliptic.P256()).PublicKey, nonce, now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := form.sign(e, key)
		if err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			for bit := range 8 {
				changed := bytes.Clone(raw)
				changed[i] ^= 1 << bit
				got, err := form.verify(changed, ear.TrustKeys(&key.PublicKey), now)
				if err == nil {
					t.Fatalf("%s: bit %d of byte %d may change: %+v", name, bit, i, got)
				}
			}
		}
		for n := range raw {
			if _, err := form.verify(raw[:n], ear.TrustKeys(&key.PublicKey), now); err == nil {
				t.Fatalf("%s: accepted at %d of %d bytes", name, n, len(raw))
			}
		}
		if _, err := form.verify(append(bytes.Clone(raw), raw...), ear.TrustKeys(&key.PublicKey), now); err == nil {
			t.Errorf("%s: bytes behind the token", name)
		}
		if _, err := form.verify(make([]byte, ear.MaxSize+1), ear.TrustKeys(&key.PublicKey), now); attest.CodeOf(err) != attest.CodeOversized {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStatus(t *testing.T) {
	bound := "instance-identity:affirming" // the first check of each result with claims
	for name, c := range map[string]struct {
		result *attest.Result
		want   ear.Tier
		vector string
	}{
		"affirmed":  {affirmed(t), ear.TierAffirming, "executables:affirming hardware:affirming " + bound},
		"warned":    {result(t, check("platform.allowed", attest.StatusPass, ""), check("rules.1", attest.StatusWarn, attest.CodeRule)), ear.TierWarning, "configuration:warning hardware:affirming " + bound},
		"refused":   {result(t, check("workload.debug", attest.StatusFail, attest.CodeDebug)), ear.TierContraindicated, "executables:contraindicated " + bound},
		"undecided": {result(t, check("authenticity.revocation", attest.StatusFail, attest.CodeEndorsementMissing)), ear.TierNone, "hardware:none " + bound},
		"both":      {result(t, check("tcb.date", attest.StatusFail, attest.CodeDebug), check("authenticity.revocation", attest.StatusFail, attest.CodeEndorsementMissing)), ear.TierContraindicated, "hardware:contraindicated " + bound},
		"floor":     {result(t, check("floor.workload.debug", attest.StatusFail, attest.CodeDebug)), ear.TierContraindicated, "executables:contraindicated " + bound},
		"else":      {result(t, check("x", attest.StatusFail, attest.CodeDebug)), ear.TierContraindicated, "configuration:contraindicated " + bound},
		"zero":      {new(attest.Result), ear.TierContraindicated, ""},
		"no claims": {attest.RefusedResult(errors.New("x"), now), ear.TierContraindicated, "configuration:contraindicated"},
	} {
		for form, f := range forms {
			key := newKey(t, elliptic.P256())
			e, err := ear.New(c.result, by, nil, nil, now, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			var vector []string
			for _, category := range slices.Sorted(maps.Keys(e.Vector)) {
				vector = append(vector, category+":"+e.Vector[category].String())
			}
			if got := strings.Join(vector, " "); e.Status != c.want || got != c.vector {
				t.Errorf("%s: made %s, %s; want %s, %s", name, e.Status, got, c.want, c.vector)
			}
			if policies := len(e.PolicyIDs); (policies == 0) != (c.result.PolicyID() == "") {
				t.Errorf("%s: %d policies", name, policies)
			}
			raw, err := f.sign(e, key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.verify(raw, ear.TrustKeys(&key.PublicKey), now)
			if err == nil && (!maps.Equal(got.Vector, e.Vector) || !slices.Equal(got.PolicyIDs, e.PolicyIDs)) {
				t.Errorf("%s %s: got %+v", form, name, got)
			}
			if err != nil || got.Status != c.want || got.Affirming() != (c.want == ear.TierAffirming) || got.Appraisal.Verdict != c.result.Verdict().String() {
				t.Errorf("%s %s: got %+v, %v; want %s", form, name, got, err, c.want)
			}
			if err == nil && (got.HolderIs(&key.PublicKey) || got.HolderIs(nil)) {
				t.Errorf("%s: a result that is tied to nobody is somebody's", form)
			}
		}
	}
	var none *ear.EAR
	if none.Affirming() || new(ear.EAR).Affirming() || none.HolderIs(nil) {
		t.Error("a zero result affirms")
	}
	if held := (&ear.EAR{Holder: &newKey(t, elliptic.P256()).PublicKey}); held.HolderIs(nil) {
		t.Error("a result that is tied to a key is tied to none")
	}
}

func TestNewRefuses(t *testing.T) {
	for name, f := range map[string]func() error{
		"no verifier": func() error { _, err := ear.New(affirmed(t), ear.Verifier{}, nil, nil, now, time.Hour); return err },
		"no developer": func() error {
			_, err := ear.New(affirmed(t), ear.Verifier{Build: "b"}, nil, nil, now, time.Hour)
			return err
		},
		"no build": func() error {
			_, err := ear.New(affirmed(t), ear.Verifier{Developer: "d"}, nil, nil, now, time.Hour)
			return err
		},
		"no lifetime": func() error { _, err := ear.New(affirmed(t), by, nil, nil, now, 0); return err },
		"short nonce": func() error { _, err := ear.New(affirmed(t), by, nil, []byte("short"), now, time.Hour); return err },
		"long nonce":  func() error { _, err := ear.New(affirmed(t), by, nil, make([]byte, 65), now, time.Hour); return err },
	} {
		if attest.CodeOf(f()) != attest.CodeUsage {
			t.Errorf("%s: %v", name, f())
		}
	}
	e, err := ear.New(affirmed(t), by, nil, nil, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range forms {
		if _, err := form.sign(e, newKey(t, elliptic.P521())); attest.CodeOf(err) != attest.CodeUnknownAlgorithm {
			t.Errorf("%s: %v", name, err)
		}
		// What is no key holds nothing.
		odd := *e
		odd.Holder = new(ecdsa.PublicKey)
		if raw, err := form.sign(&odd, newKey(t, elliptic.P256())); err == nil {
			t.Errorf("%s: a holder without a key: %q", name, raw)
		}
	}
	if id, err := ear.KeyID(new(ecdsa.PublicKey)); err == nil {
		t.Errorf("what is no key has the name %s", id)
	}
}

// What there is nothing to say about is not said.
func TestNothingEmpty(t *testing.T) {
	key := newKey(t, elliptic.P256())
	e, err := ear.New(new(attest.Result), by, nil, nil, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ear.SignCWT(e, key)
	if err != nil {
		t.Fatal(err)
	}
	message, err := cose.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	v, err := strictcbor.Parse(message.Payload, strictcbor.Limits{Depth: 6, Items: 64})
	if err != nil {
		t.Fatal(err)
	}
	a := v.Get(266).Field(ear.Submodule)
	if !a.Get(1000).Present() || a.Get(1001).Present() || a.Get(1003).Present() || v.Get(10).Present() || v.Get(8).Present() {
		t.Errorf("got %x", message.Payload)
	}
	if raw, err = ear.SignJWT(e, key); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(string(raw), ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vector", "policy", "nonce", "cnf"} {
		if strings.Contains(string(payload), name) {
			t.Errorf("got %s", payload)
		}
	}
}

const goodJSON = `{"eat_profile":"tag:ietf.org,2026:rats/ear#03","iat":1793534400,"exp":1793538000,"ear_verifier_id":{"developer":"d","build":"b"},"submods":{"A":{"ear_status":"affirming","ear_trustworthiness_vector":{"hardware":2}}}}`

// signed is payload signed by key as a token.
func signed(t *testing.T, payload string, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	compact, err := s.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(compact)
}

func jwk(t *testing.T, key *ecdsa.PublicKey) string {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKey{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What others made, and what is wrong with it.
func TestForeignJWT(t *testing.T) {
	key := newKey(t, elliptic.P256())
	now := time.Unix(1793534500, 0)
	for name, c := range map[string]struct {
		old, new string
		code     attest.Code // of the refusal
		status   ear.Tier    // where there is none
		reason   string
	}{
		"as it is":               {"", "", "", ear.TierAffirming, ""},
		"unknown claim":          {`{"eat_`, `{"what":{"is":1},"eat_`, "", ear.TierAffirming, ""},
		"second worse":           {`"submods":{`, `"submods":{"B":{"ear_status":"warning"},`, "", ear.TierWarning, ""},
		"overall worse":          {`"iat"`, `"ear_status":"contraindicated","iat"`, "", ear.TierContraindicated, ""},
		"overall better":         {`"submods":{`, `"ear_status":"affirming","submods":{"B":{"ear_status":"contraindicated"},`, "", ear.TierContraindicated, ""},
		"category worse":         {`{"hardware":2}`, `{"hardware":2,"executables":96}`, "", ear.TierContraindicated, ""},
		"category negative":      {`{"hardware":2}`, `{"hardware":-97}`, "", ear.TierContraindicated, ""},
		"none is not affirming":  {`"ear_status":"affirming"`, `"ear_status":"none"`, "", ear.TierNone, ""},
		"duplicate key":          {`"submods":{`, `"submods":{},"submods":{`, attest.CodeDuplicateField, 0, `key "submods" twice`},
		"key in another case":    {`"submods":{`, `"SUBMODS":{},"submods":{`, attest.CodeDuplicateField, 0, `key "submods" twice`},
		"other profile":          {"ear#03", "ear#02", attest.CodeUnknownVersion, 0, "tag:ietf.org,2026:rats/ear#02"},
		"no profile":             {`"eat_profile"`, `"x"`, attest.CodeUnknownVersion, 0, "want tag:ietf.org,2026:rats/ear#03"},
		"no iat":                 {`"iat"`, `"x"`, attest.CodeMalformed, 0, "no iat, exp or ear_verifier_id"},
		"no exp":                 {`"exp"`, `"x"`, attest.CodeMalformed, 0, "no iat, exp or ear_verifier_id"},
		"iat is no whole number": {"1793534400", "1793534400.5", attest.CodeMalformed, 0, "cannot unmarshal number"},
		"no verifier":            {`"ear_verifier_id"`, `"x"`, attest.CodeMalformed, 0, "no iat, exp or ear_verifier_id"},
		"empty verifier":         {`"developer":"d"`, `"developer":""`, attest.CodeMalformed, 0, "no verifier id"},
		"no submods":             {`"submods"`, `"x"`, attest.CodeMalformed, 0, "no appraisal"},
		"no status":              {`"ear_status":"affirming",`, ``, attest.CodeMalformed, 0, "a status that is no tier"},
		"odd status":             {`"ear_status":"affirming"`, `"ear_status":"splendid"`, attest.CodeMalformed, 0, "a status that is no tier"},
		"odd overall status":     {`"iat"`, `"ear_status":"splendid","iat"`, attest.CodeMalformed, 0, "a status that is no tier"},
		"odd category":           {`"hardware"`, `"hardwear"`, attest.CodeMalformed, 0, "a category that is none"},
		"category out of range":  {`"hardware":2`, `"hardware":200`, attest.CodeMalformed, 0, "cannot unmarshal number"},
		"short nonce":            {`"iat"`, `"eat_nonce":"AAAA","iat"`, attest.CodeMalformed, 0, "a nonce of another size"},
		"odd nonce":              {`"iat"`, `"eat_nonce":"!!","iat"`, attest.CodeMalformed, 0, "a nonce that is not base64url"},
		"nonce that ends oddly":  {`"iat"`, `"eat_nonce":"AAAAAAAAAAA!","iat"`, attest.CodeMalformed, 0, "a nonce that is not base64url"},
		"odd confirmation":       {`"iat"`, `"cnf":{"kid":"x"},"iat"`, attest.CodeUnknownField, 0, "a key confirmation of another kind"},
		"no confirmation":        {`"iat"`, `"cnf":null,"iat"`, attest.CodeUnknownField, 0, "a key confirmation of another kind"},
		"not yet":                {`"iat"`, `"nbf":1793534561,"iat"`, attest.CodeResultExpired, 0, "not valid before 2026-11-01T12:02:41Z"},
		"nearly yet":             {`"iat"`, `"nbf":1793534560,"iat"`, "", ear.TierAffirming, ""},
		"odd nbf":                {`"iat"`, `"nbf":"x","iat"`, attest.CodeMalformed, 0, "nbf that is no whole number"},
		"for somebody":           {`"iat"`, `"aud":"x","iat"`, attest.CodeUnknownField, 0, "a result for a certain audience"},
		"secret as confirmation": {`"iat"`, `"cnf":{"jwk":{"kty":"oct","k":"AAAA"}},"iat"`, attest.CodeUnknownField, 0, "a key confirmation of another kind"},
		"bytes behind":           {`}}}}`, `}}}}{}`, attest.CodeMalformed, 0, "bytes after the document"},
		"category that wraps":    {`{"hardware":2}`, `{"hardware":-254}`, attest.CodeMalformed, 0, "cannot unmarshal number"},
		"category none":          {`{"hardware":2}`, `{"hardware":1}`, "", ear.TierAffirming, ""},
		"category warning":       {`{"hardware":2}`, `{"hardware":-33}`, "", ear.TierWarning, ""},
		"category in text":       {`{"hardware":2}`, `{"hardware":"2"}`, attest.CodeMalformed, 0, "cannot unmarshal string"},
		"status in a number":     {`"ear_status":"affirming"`, `"ear_status":2`, attest.CodeMalformed, 0, "cannot unmarshal number"},
		"second is odd":          {`"submods":{`, `"submods":{"B":{"ear_status":"splendid"},`, attest.CodeMalformed, 0, "a status that is no tier"},
		"no build":               {`"build":"b"`, `"build":""`, attest.CodeMalformed, 0, "no verifier id"},
		"shortest nonce":         {`"iat"`, `"eat_nonce":"AAAAAAAAAAA","iat"`, "", ear.TierAffirming, ""},
		"longest nonce":          {`"iat"`, `"eat_nonce":"` + strings.Repeat("AAAA", 21) + `AA","iat"`, "", ear.TierAffirming, ""},
		"long nonce":             {`"iat"`, `"eat_nonce":"` + strings.Repeat("AAAA", 21) + `AAA","iat"`, attest.CodeMalformed, 0, "a nonce of another size"},
		"empty nonce":            {`"iat"`, `"eat_nonce":"","iat"`, attest.CodeMalformed, 0, "a nonce that is not base64url"},
		"two nonces":             {`"iat"`, `"eat_nonce":["AAAAAAAAAAA","AAAAAAAAAAA"],"iat"`, attest.CodeMalformed, 0, "cannot unmarshal array"},
		"nonce twice":            {`"iat"`, `"eat_nonce":"AAAAAAAAAAA","eat_nonce":"AAAAAAAAAAA","iat"`, attest.CodeDuplicateField, 0, `key "eat_nonce" twice`},
		"two confirmations":      {`"iat"`, `"cnf":{"jwk":` + jwk(t, &key.PublicKey) + `,"kid":"x"},"iat"`, attest.CodeUnknownField, 0, "a key confirmation of another kind"},
		"one confirmation":       {`"iat"`, `"cnf":{"jwk":` + jwk(t, &key.PublicKey) + `},"iat"`, "", ear.TierAffirming, ""},
		"ours":                   {`{"ear_status"`, `{"jurat_appraisal":{"verdict":"affirmed"},"ear_status"`, "", ear.TierAffirming, ""},
		"ours has a key twice":   {`{"ear_status"`, `{"jurat_appraisal":{"verdict":"refused","verdict":"affirmed"},"ear_status"`, attest.CodeDuplicateField, 0, `key "verdict" twice`},
		"ours of other type":     {`{"ear_status"`, `{"jurat_appraisal":{"verdict":1},"ear_status"`, attest.CodeMalformed, 0, "cannot unmarshal number"},
		"our label without ours": {`"A"`, `"jurat"`, "", ear.TierAffirming, ""},
	} {
		payload := goodJSON
		if c.old != "" {
			if payload = strings.Replace(goodJSON, c.old, c.new, 1); payload == goodJSON {
				t.Fatalf("%s: nothing replaced", name)
			}
		}
		got, err := ear.VerifyJWT(signed(t, payload, key), ear.TrustKeys(&key.PublicKey), now)
		if attest.CodeOf(err) != c.code || err == nil && got.Status != c.status || err != nil && !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: got %+v, %v; want %s %s %s", name, got, err, c.code, c.status, c.reason)
		}
		if err == nil && got.Appraisal != (ear.Appraisal{}) {
			t.Errorf("%s: takes another's appraisal for ours: %+v", name, got.Appraisal)
		}
		if err == nil && (got.Vector["hardware"] == ear.TierNone) != (name == "category none") {
			t.Errorf("%s: hardware is %s", name, got.Vector["hardware"])
		}
	}
}

// The algorithm is the key's, not the token's.
func TestAlgorithmConfusion(t *testing.T) {
	key := newKey(t, elliptic.P256())
	trust := ear.TrustKeys(&key.PublicKey)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	token := func(header string, sign func(string) []byte) []byte {
		input := b64([]byte(header)) + "." + b64([]byte(goodJSON))
		return []byte(input + "." + b64(sign(input)))
	}
	mac := func(secret []byte) func(string) []byte {
		return func(input string) []byte {
			h := hmac.New(sha256.New, secret)
			h.Write([]byte(input))
			return h.Sum(nil)
		}
	}
	other := newKey(t, elliptic.P256())
	jwk, err := json.Marshal(jose.JSONWebKey{Key: &other.PublicKey})
	if err != nil {
		t.Fatal(err)
	}
	embedded, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: other}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	self, err := embedded.Sign([]byte(goodJSON))
	if err != nil {
		t.Fatal(err)
	}
	compact, err := self.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"none":              token(`{"alg":"none"}`, func(string) []byte { return nil }),
		"HMAC with the key": token(`{"alg":"HS256"}`, mac(spki)),
		"ES384, P-256":      token(`{"alg":"ES384"}`, func(string) []byte { return make([]byte, 96) }),
		"ES384 by a key of P-256": token(`{"alg":"ES384"}`, func(input string) []byte {
			h := sha512.Sum384([]byte(input))
			r, s, err := ecdsa.Sign(rand.Reader, key, h[:])
			if err != nil {
				t.Fatal(err)
			}
			return append(r.FillBytes(make([]byte, 48)), s.FillBytes(make([]byte, 48))...)
		}),
		"zero signature": token(`{"alg":"ES256"}`, func(string) []byte { return make([]byte, 64) }),
		"critical header": token(`{"alg":"ES256","crit":["exp"],"exp":1}`, func(input string) []byte {
			h := sha256.Sum256([]byte(input))
			der, err := key.Sign(rand.Reader, h[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			return der
		}),
		"its own key":       []byte(compact),
		"key in the header": token(`{"alg":"ES256","jwk":`+string(jwk)+`}`, func(string) []byte { return make([]byte, 64) }),
		"JSON form":         []byte(`{"payload":"` + b64([]byte(goodJSON)) + `","signatures":[]}`),
		"empty":             nil,
	} {
		if got, err := ear.VerifyJWT(raw, trust, time.Unix(1793534500, 0)); err == nil {
			t.Errorf("%s: accepted %+v", name, got)
		}
	}
}

func TestForeignCWT(t *testing.T) {
	key := newKey(t, elliptic.P384())
	holder, err := cose.KeyMap(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	good := func() map[int64]any {
		return map[int64]any{
			265: ear.Profile, 6: int64(1793534400), 4: int64(1793538000), 1004: map[int64]any{0: "d", 1: "b"},
			266: map[string]any{"A": map[int64]any{1000: int64(2), 1001: map[int64]any{4: int64(2)}, 1003: []string{"p"}}},
		}
	}
	sub := func(m map[int64]any) map[int64]any { return m[266].(map[string]any)["A"].(map[int64]any) }
	for name, c := range map[string]struct {
		change func(map[int64]any)
		code   attest.Code
		status ear.Tier
		reason string
	}{
		"as it is":               {func(map[int64]any) {}, "", ear.TierAffirming, ""},
		"unknown claim":          {func(m map[int64]any) { m[-80000] = "x" }, "", ear.TierAffirming, ""},
		"second worse":           {func(m map[int64]any) { m[266].(map[string]any)["B"] = map[int64]any{1000: int64(32)} }, "", ear.TierWarning, ""},
		"overall worse":          {func(m map[int64]any) { m[1000] = int64(96) }, "", ear.TierContraindicated, ""},
		"category worse":         {func(m map[int64]any) { sub(m)[1001].(map[int64]any)[2] = int64(96) }, "", ear.TierContraindicated, ""},
		"other profile":          {func(m map[int64]any) { m[265] = "x" }, attest.CodeUnknownVersion, 0, "x"},
		"no exp":                 {func(m map[int64]any) { delete(m, 4) }, attest.CodeMalformed, 0, "no iat, exp or verifier id"},
		"no iat":                 {func(m map[int64]any) { delete(m, 6) }, attest.CodeMalformed, 0, "no iat, exp or verifier id"},
		"no verifier":            {func(m map[int64]any) { delete(m, 1004) }, attest.CodeMalformed, 0, "no iat, exp or verifier id"},
		"empty verifier":         {func(m map[int64]any) { m[1004] = map[int64]any{0: "d"} }, attest.CodeMalformed, 0, "no verifier id"},
		"no submods":             {func(m map[int64]any) { delete(m, 266) }, attest.CodeMalformed, 0, "no appraisal"},
		"odd status":             {func(m map[int64]any) { sub(m)[1000] = int64(3) }, attest.CodeMalformed, 0, "a status that is no tier"},
		"status far off":         {func(m map[int64]any) { sub(m)[1000] = int64(258) }, attest.CodeMalformed, 0, "a status that is no tier"},
		"odd overall":            {func(m map[int64]any) { m[1000] = int64(1) }, attest.CodeMalformed, 0, "a status that is no tier"},
		"odd category":           {func(m map[int64]any) { sub(m)[1001].(map[int64]any)[8] = int64(2) }, attest.CodeMalformed, 0, "a category that is none"},
		"category far off":       {func(m map[int64]any) { sub(m)[1001].(map[int64]any)[2] = int64(258) }, attest.CodeMalformed, 0, "a category that is none"},
		"status in text":         {func(m map[int64]any) { sub(m)[1000] = "affirming" }, attest.CodeMalformed, 0, "a status that is no tier"},
		"status that wraps":      {func(m map[int64]any) { sub(m)[1000] = int64(-254) }, attest.CodeMalformed, 0, "a status that is no tier"},
		"overall that wraps":     {func(m map[int64]any) { m[1000] = int64(-254) }, attest.CodeMalformed, 0, "a status that is no tier"},
		"second is odd":          {func(m map[int64]any) { m[266].(map[string]any)["B"] = map[int64]any{1000: int64(3)} }, attest.CodeMalformed, 0, "a status that is no tier"},
		"category that wraps":    {func(m map[int64]any) { sub(m)[1001].(map[int64]any)[2] = int64(-254) }, attest.CodeMalformed, 0, "a category that is none"},
		"category none":          {func(m map[int64]any) { sub(m)[1001].(map[int64]any)[2] = int64(-1) }, "", ear.TierAffirming, ""},
		"category warning":       {func(m map[int64]any) { sub(m)[1001].(map[int64]any)[2] = int64(-33) }, "", ear.TierWarning, ""},
		"lowest category":        {func(m map[int64]any) { sub(m)[1001].(map[int64]any)[2] = int64(-128) }, "", ear.TierContraindicated, ""},
		"category in text":       {func(m map[int64]any) { sub(m)[1001].(map[int64]any)[2] = "2" }, attest.CodeMalformed, 0, "a category that is none"},
		"category by name":       {func(m map[int64]any) { sub(m)[1001] = map[string]any{"hardware": int64(2)} }, attest.CodeMalformed, 0, "a category that is none"},
		"vector is no map":       {func(m map[int64]any) { sub(m)[1001] = "x" }, attest.CodeMalformed, 0, "a vector that is no map"},
		"policies no list":       {func(m map[int64]any) { sub(m)[1003] = "p" }, attest.CodeMalformed, 0, "policy ids that are no list"},
		"verifier no map":        {func(m map[int64]any) { m[1004] = "d" }, attest.CodeMalformed, 0, "no iat, exp or verifier id"},
		"no build":               {func(m map[int64]any) { m[1004] = map[int64]any{0: "d", 1: ""} }, attest.CodeMalformed, 0, "no verifier id"},
		"empty nonce":            {func(m map[int64]any) { m[10] = []byte{} }, attest.CodeMalformed, 0, "a nonce that is no byte string"},
		"shortest nonce":         {func(m map[int64]any) { m[10] = make([]byte, 8) }, "", ear.TierAffirming, ""},
		"longest nonce":          {func(m map[int64]any) { m[10] = make([]byte, 64) }, "", ear.TierAffirming, ""},
		"long nonce":             {func(m map[int64]any) { m[10] = make([]byte, 65) }, attest.CodeMalformed, 0, "a nonce of another size"},
		"two nonces":             {func(m map[int64]any) { m[10] = [][]byte{make([]byte, 8), make([]byte, 8)} }, attest.CodeMalformed, 0, "a nonce that is no byte string"},
		"one confirmation":       {func(m map[int64]any) { m[8] = map[int64]any{1: holder} }, "", ear.TierAffirming, ""},
		"two confirmations":      {func(m map[int64]any) { m[8] = map[int64]any{1: holder, 3: []byte{1}} }, attest.CodeUnknownField, 0, "a key confirmation of another kind"},
		"ours":                   {func(m map[int64]any) { sub(m)[-70100] = `{"verdict":"affirmed"}` }, "", ear.TierAffirming, ""},
		"ours has a key twice":   {func(m map[int64]any) { sub(m)[-70100] = `{"verdict":"refused","verdict":"affirmed"}` }, attest.CodeDuplicateField, 0, `key "verdict" twice`},
		"ours is too long":       {func(m map[int64]any) { sub(m)[-70100] = `{"verdict":"` + strings.Repeat("x", 4<<10) + `"}` }, attest.CodeMalformed, 0, "4110 bytes, more than 4096"},
		"our label without ours": {func(m map[int64]any) { m[266] = map[string]any{"jurat": sub(m)} }, "", ear.TierAffirming, ""},
		"odd policy":             {func(m map[int64]any) { sub(m)[1003] = []any{int64(1)} }, attest.CodeMalformed, 0, "a policy id that is no text"},
		"odd label":              {func(m map[int64]any) { m[266] = map[int64]any{1: map[int64]any{1000: int64(2)}} }, attest.CodeMalformed, 0, "an appraisal without a label"},
		"odd nonce":              {func(m map[int64]any) { m[10] = "text" }, attest.CodeMalformed, 0, "a nonce that is no byte string"},
		"short nonce":            {func(m map[int64]any) { m[10] = []byte{1} }, attest.CodeMalformed, 0, "a nonce of another size"},
		"not yet":                {func(m map[int64]any) { m[5] = int64(1793534561) }, attest.CodeResultExpired, 0, "not valid before 2026-11-01T12:02:41Z"},
		"nearly yet":             {func(m map[int64]any) { m[5] = int64(1793534560) }, "", ear.TierAffirming, ""},
		"odd nbf":                {func(m map[int64]any) { m[5] = "x" }, attest.CodeMalformed, 0, "nbf that is no whole number"},
		"for somebody":           {func(m map[int64]any) { m[3] = "x" }, attest.CodeUnknownField, 0, "a result for a certain audience"},
		"odd confirmation":       {func(m map[int64]any) { m[8] = map[int64]any{3: []byte{1}} }, attest.CodeUnknownField, 0, "a key confirmation of another kind"},
		"ours is no JSON":        {func(m map[int64]any) { sub(m)[-70100] = "{" }, attest.CodeMalformed, 0, "EOF"},
		"ours is no text":        {func(m map[int64]any) { sub(m)[-70100] = int64(1) }, attest.CodeMalformed, 0, "EOF"},
		"ours of other type":     {func(m map[int64]any) { sub(m)[-70100] = `{"verdict":1}` }, attest.CodeMalformed, 0, "cannot unmarshal number"},
	} {
		m := good()
		c.change(m)
		payload, err := strictcbor.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := cose.Sign(key, payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range [][]byte{raw, cose.Tag(raw)} {
			got, err := ear.VerifyCWT(token, ear.TrustKeys(&key.PublicKey), time.Unix(1793534500, 0))
			if attest.CodeOf(err) != c.code || err == nil && got.Status != c.status || err != nil && !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%s: got %+v, %v; want %s %s %s", name, got, err, c.code, c.status, c.reason)
			}
		}
	}
}

// A signature over what is no map of claims, or by a key of a curve that results are not signed on, gives nothing.
func TestCWTPayload(t *testing.T) {
	key, long := newKey(t, elliptic.P256()), newKey(t, elliptic.P521())
	for name, c := range map[string]struct {
		key     *ecdsa.PrivateKey
		payload []byte
		code    attest.Code
	}{
		"no CBOR":          {key, []byte{0xff}, attest.CodeMalformed},
		"no payload":       {key, []byte{}, attest.CodeMalformed},
		"a label twice":    {key, []byte{0xa2, 6, 1, 6, 2}, attest.CodeDuplicateField},
		"no map":           {key, []byte{1}, attest.CodeUnknownVersion},
		"an unusual curve": {long, []byte{0xa0}, attest.CodeResultSigner},
	} {
		raw, err := cose.Sign(c.key, c.payload)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ear.VerifyCWT(raw, ear.TrustKeys(&key.PublicKey, &long.PublicKey), now); attest.CodeOf(err) != c.code || got != nil {
			t.Errorf("%s: got %+v, %v; want %s", name, got, err, c.code)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := newKey(f, elliptic.P256())
	e, err := ear.New(affirmed(f), by, &key.PublicKey, nonce, now, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	for _, form := range forms {
		raw, err := form.sign(e, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	stranger := newKey(f, elliptic.P256())
	f.Fuzz(func(t *testing.T, raw []byte) {
		for name, form := range forms {
			if got, err := form.verify(raw, ear.TrustKeys(&stranger.PublicKey), now); err == nil {
				t.Fatalf("%s: accepts %+v, which nobody signed", name, got)
			}
		}
	})
}
