package record_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/record"
)

func sample() *record.Record {
	return &record.Record{
		Time: time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC), Target: "a.example:443", ServerName: "a.example",
		Chain: [][]byte{{0x30, 1}, {0x30, 2}},
		Fetched: []record.Fetched{
			{Ref: attest.Ref{Service: "amd-kds", Path: "/vcek/v1/Milan/crl", Kind: attest.KindCRL}, Endorsements: []attest.Endorsement{{Kind: attest.KindCRL, Raw: []byte{1}}}},
			{Ref: attest.Ref{Service: "amd-kds", Path: "/vcek/v1/Milan/x?<&>", Kind: attest.KindCertificate}, Problem: &attest.Error{Code: attest.CodeEndorserUnreachable, Check: "endorsements", Got: "nothing", Err: errors.New("no route")}},
		},
		Challenge: []byte{9, 9},
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 1, 64)
		r := &record.Record{Time: time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "time"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(), Target: rapid.StringMatching(`[a-z<>&"é]{0,20}`).Draw(t, "target")}
		endorsements := func() (out []attest.Endorsement) {
			for range rapid.IntRange(1, 3).Draw(t, "endorsements") {
				out = append(out, attest.Endorsement{Kind: attest.KindCertificate, Raw: data.Draw(t, "endorsement")})
			}
			return out
		}
		if rapid.Bool().Draw(t, "bare") {
			r.Evidence = &attest.Evidence{Format: "snp", Raw: data.Draw(t, "raw"), Endorsements: endorsements()}
		} else {
			r.Target, r.ServerName, r.Chain = "a:443", "a", [][]byte{data.Draw(t, "leaf")}
			if rapid.Bool().Draw(t, "client") {
				r.Target, r.ServerName, r.Client = "[2001:db8::1]:999", "", true
			}
		}
		if r.Chain != nil && rapid.Bool().Draw(t, "session") {
			r.Session = &record.Session{
				Profile: "p", Suite: rapid.Uint16().Draw(t, "suite"), Attestation: data.Draw(t, "attestation"),
				Challenge: [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "session challenge")),
				Exporter:  [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "exporter")),
				Asked:     r.Time,
			}
		}
		if rapid.Bool().Draw(t, "challenged") {
			r.Challenge = data.Draw(t, "challenge")
		}
		for range rapid.IntRange(0, 3).Draw(t, "fetched") {
			f := record.Fetched{Ref: attest.Ref{Service: "s", Path: rapid.String().Draw(t, "path"), Kind: attest.KindCRL}}
			if rapid.Bool().Draw(t, "problem") {
				f.Problem = &attest.Error{Code: attest.CodeEndorsementMissing, Got: "x", Err: errors.New("y")}
			} else {
				f.Endorsements = endorsements()
			}
			r.Fetched = append(r.Fetched, f)
		}
		raw, err := record.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := record.Decode(raw)
		if err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		if !reflect.DeepEqual(got, r) {
			t.Fatalf("got  %+v\nwant %+v", got, r)
		}
		again, err := record.Encode(got)
		if err != nil || !bytes.Equal(raw, again) {
			t.Fatalf("encodes differently the second time: %v", err)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	raw, err := record.Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	good := string(raw)
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(good) }
	long := strings.Repeat("4", 2000)
	const (
		nameless = "a chain without the name that was expected, or a client with one"
		other    = "a target that is not the name that was expected"
		named    = "a client with a name"
		many     = "too many entries"
		longText = "a text of more than 1024 bytes"
		answer   = "an answer with neither or both of endorsements and problem"
	)
	withSession := sample()
	withSession.Session = &record.Session{Profile: "p", Challenge: [32]byte{1}, Exporter: [32]byte{2}, Attestation: []byte{3}, Asked: withSession.Time.Add(-time.Second)}
	if raw, err = record.Encode(withSession); err != nil {
		t.Fatal(err)
	}
	session := func(old, with string) string {
		changed := strings.Replace(string(raw), old, with, 1)
		if changed == string(raw) {
			t.Fatalf("%s is not in %s", old, raw)
		}
		return changed
	}
	const incomplete = "evidence for a connection without challenge, exporter or time"
	client := func(target string) string {
		return replace(`"server_name": "a.example"`, `"client": true`, `a.example:443`, target)
	}
	if r, err := record.Decode([]byte(client("192.0.2.1:999"))); err != nil || !r.Client {
		t.Fatalf("a client: %+v, %v", r, err)
	}
	for name, c := range map[string]struct{ in, reason string }{
		"empty":                     {"", "EOF"},
		"not JSON":                  {"jurat", "invalid character 'j'"},
		"null":                      {"null", "version 0, not 1"},
		"list":                      {"[]", "cannot unmarshal array"},
		"trailing":                  {good + "{}", "bytes after the document"},
		"truncated":                 {good[:len(good)/2], "unexpected EOF"},
		"other version":             {replace(`"jurat": 1`, `"jurat": 2`), "version 2, not 1"},
		"no version":                {replace(`"jurat": 1,`, ``), "version 0, not 1"},
		"no time":                   {replace(`"2026-11-23T12:00:00.123456789Z"`, `"0001-01-01T00:00:00Z"`), "no time"},
		"unknown key":               {replace(`"target"`, `"more": 1, "target"`), `unknown field "more"`},
		"key twice":                 {replace(`"target"`, `"server_name": "evil.example", "target"`), `key "server_name" twice`},
		"key in capitals":           {replace(`"server_name"`, `"Server_name"`), `key "Server_name"`},
		"twin in capitals":          {replace(`"target"`, `"SERVER_NAME": "evil.example", "target"`), `key "SERVER_NAME"`},
		"twin with a Kelvin sign":   {replace(`"service": "amd-kds"`, `"service": "amd-kds", "\u212aind": "crl"`), "key \"\u212aind\""},
		"chain and evidence":        {replace(`"chain"`, `"evidence": {"format": "snp", "raw": "AA=="}, "chain"`), "both a chain and bare evidence"},
		"chain without name":        {replace(`"server_name": "a.example",`, ``), nameless},
		"client with a server name": {replace(`"server_name"`, `"client": true, "server_name"`), nameless},
		"client with a name":        {client("a.example:443"), named},
		"client without a port":     {client("192.0.2.1"), named},
		"time after all years":      {replace(`"2026-11-23T12:00:00.123456789Z"`, `"9999-12-31T23:59:59-12:00"`), "no four digits"},
		"time before all years":     {replace(`"2026-11-23T12:00:00.123456789Z"`, `"0000-01-01T00:00:00+12:00"`), "no four digits"},
		"asked after all years":     {session(`"2026-11-23T11:59:59.123456789Z"`, `"9999-12-31T23:59:59-12:00"`), "no four digits"},
		"neither":                   {`{"jurat": 1, "time": "2026-11-23T12:00:00Z", "target": "a"}`, "neither a chain nor evidence"},
		"answer with neither":       {replace(`"endorsements": [`, `"problem": null, "endorsements": [], "x": [`), `unknown field "x"`},
		"answer without any":        {replace("\"kind\": \"crl\",\n   \"endorsements\": [\n    {\n     \"kind\": \"crl\",\n     \"raw\": \"AQ==\"\n    }\n   ]", `"kind": "crl"`), answer},
		"answer with both":          {replace("\"kind\": \"crl\",\n   \"end", `"kind": "crl", "problem": {"code": "J601"}, "end`), answer},
		"failed fetch that affirms": {replace(`J603`, ``), `a failed fetch with code ""`},
		"failed fetch that refuses": {replace(`J603`, `J304`), `a failed fetch with code "J304"`},
		"bad base64":                {replace(`"MAE="`, `"***"`), "illegal base64 data"},
		"bad challenge":             {replace(`"0909"`, `"zz"`), "encoding/hex: invalid byte"},
		"deep":                      {`{"jurat": 1, "chain": ` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, "nested deeper than 9"},
		"long target":               {replace(`a.example:443`, "a.example:"+long), longText},
		"long name":                 {`{"jurat": 1, "time": "2026-11-23T12:00:00Z", "target": "a", "server_name": "` + long + `", "evidence": {"format": "snp", "raw": "AA=="}}`, longText},
		"long challenge":            {replace(`0909`, "0909"+long), longText},
		"long chain":                {replace(`"MAE="`, strings.Repeat(`"MAE=",`, 16)+`"MAE="`), many},
		"many answers":              {replace(`"fetched": [`, `"fetched": [`+strings.Repeat(`{"service":"s","path":"p","kind":"crl","problem":{"code":"J603"}},`, 63)), many},
		"target of another name":    {replace(`a.example:443`, "bank.example:443"), other},
		"target without a port":     {replace(`a.example:443`, "a.example"), other},
		"session without a chain":   {`{"jurat": 1, "time": "2026-11-23T12:00:00Z", "target": "a", "evidence": {"format": "snp", "raw": "AA=="}, "session": {}}`, "without the chain of its end"},
		"session of nothing":        {replace(`"chain"`, `"session": {}, "chain"`), incomplete},
		"short challenge":           {session(`"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="`, `"AQ=="`), incomplete},
		"short exporter":            {session(`"AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="`, `"Ag=="`), incomplete},
		"session at no time":        {session(`"2026-11-23T11:59:59.123456789Z"`, `"0001-01-01T00:00:00Z"`), incomplete},
		"too long":                  {strings.Repeat(" ", record.MaxSize+1), "8388609 bytes, more than 8388608"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.in == good {
				t.Fatal("the case changes nothing")
			}
			r, err := record.Decode([]byte(c.in))
			if attest.CodeOf(err) != attest.CodeMalformedRecord || r != nil || !strings.Contains(err.Error(), c.reason) {
				t.Fatalf("got %v, %v; want %s", r, err, c.reason)
			}
		})
	}
	// As many and as long as there may be.
	most := sample()
	for len(most.Chain) < 16 {
		most.Chain = append(most.Chain, most.Chain[0])
	}
	for len(most.Fetched) < 64 {
		most.Fetched = append(most.Fetched, most.Fetched[0])
	}
	most.Challenge, most.ServerName = make([]byte, 512), strings.Repeat("a", 1020)
	most.Target = most.ServerName + ":443"
	if raw, err = record.Encode(most); err != nil {
		t.Fatal(err)
	}
	if _, err := record.Decode(raw); err != nil {
		t.Fatal(err)
	}
	// Evidence alone has no name to be held to.
	bare := &record.Record{Time: time.Now(), Target: "anything", Evidence: &attest.Evidence{Format: "snp", Raw: []byte{1}}}
	if _, err := record.Encode(bare); err != nil {
		t.Error(err)
	}
	if _, err := record.Encode(&record.Record{Time: time.Now()}); attest.CodeOf(err) != attest.CodeMalformedRecord {
		t.Errorf("an empty record encodes: %v", err)
	}
	bare.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) // which JSON has no form for
	if raw, err := record.Encode(bare); err == nil {
		t.Errorf("encodes as %q", raw)
	}
}

type endorser func(attest.Ref) ([]attest.Endorsement, error)

func (e endorser) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	return e(ref)
}

// A replay answers what was answered, errors included, and asks nobody.
func TestReplay(t *testing.T) {
	refs := map[string]attest.Ref{}
	for _, p := range []string{"good", "coded", "plain", "empty", "refused"} {
		refs[p] = attest.Ref{Service: "s", Path: p, Kind: attest.KindCRL}
	}
	recorder := record.NewRecorder(endorser(func(ref attest.Ref) ([]attest.Endorsement, error) {
		switch ref.Path {
		case "good":
			return []attest.Endorsement{{Kind: attest.KindCRL, Raw: []byte{1}}}, nil
		case "coded":
			return nil, &attest.Error{Code: attest.CodeEndorserRefused, Got: "429"}
		case "plain":
			return nil, errors.New("no route")
		case "refused":
			return nil, &attest.Error{Code: attest.CodeSignature}
		}
		return nil, nil
	}))
	type answer struct {
		n    int
		text string
	}
	ask := func(e attest.Endorser, ref attest.Ref) answer {
		list, err := e.Endorse(t.Context(), ref)
		if err == nil {
			return answer{len(list), ""}
		}
		if !attest.CodeOf(err).Undecidable() {
			t.Errorf("%s: a failed fetch decides: %v", ref.Path, err)
		}
		return answer{len(list), err.Error()}
	}
	live := map[string]answer{}
	for name, ref := range refs {
		live[name] = ask(recorder, ref)
	}
	unreachable := attest.CodeEndorserUnreachable.Title()
	for name, want := range map[string]answer{
		"good":    {1, ""},
		"coded":   {0, (&attest.Error{Code: attest.CodeEndorserRefused, Got: "429"}).Error()},
		"plain":   {0, unreachable + ": no route (J603)"},
		"empty":   {0, (&attest.Error{Code: attest.CodeEndorsementMissing, Got: "an empty answer"}).Error()},
		"refused": {0, unreachable + ": " + (&attest.Error{Code: attest.CodeSignature}).Error() + " (J603)"},
	} {
		if live[name] != want {
			t.Errorf("%s: answers %+v, want %+v", name, live[name], want)
		}
	}
	r := sample()
	r.Fetched = recorder.Fetched()
	raw, err := record.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := record.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	for name, ref := range refs {
		if got := ask(again.Endorser(), ref); got != live[name] {
			t.Errorf("%s: replayed %v, was %v", name, got, live[name])
		}
	}
	if _, err := again.Endorser().Endorse(t.Context(), attest.Ref{Service: "s", Path: "never asked"}); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Errorf("never asked: %v", err)
	}
	key := attest.Ref{Service: "s", Path: "/key", Kind: attest.KindPublicKey}
	forged := record.Record{Fetched: []record.Fetched{{Ref: key, Endorsements: []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: []byte{1}}}}}}
	if list, err := forged.Endorser().Endorse(t.Context(), key); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Errorf("a record brings its own anchor: %v, %v", list, err)
	}
}

func FuzzDecode(f *testing.F) {
	raw, err := record.Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"jurat":1,"time":"2026-11-23T12:00:00Z","target":"a","evidence":{"format":"snp","raw":"AA=="}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := record.Decode(raw)
		if err != nil {
			if attest.CodeOf(err) != attest.CodeMalformedRecord {
				t.Fatalf("got %v", err)
			}
			return
		}
		once, err := record.Encode(r)
		if err != nil {
			t.Fatalf("decodes and does not encode: %v", err)
		}
		again, err := record.Decode(once)
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("another record the second time: %v", err)
		}
	})
}
