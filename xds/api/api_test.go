package api_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	udpa "github.com/cncf/xds/go/udpa/type/v1"
	xds "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/api"
	pb "github.com/jurat-tls/jurat/xds/api/jurat/config/v1alpha1"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func structOf(t testing.TB, fields map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The same validator, as control planes carry it.
func TestValidatorInEveryWrapping(t *testing.T) {
	want := api.Validator{Policy: "mesh", Reattest: 90 * time.Second, Name: "pay.example"}
	fields := structOf(t, map[string]any{"policy": "mesh", "pki_mode": "EVIDENCE_ONLY", "reattest": "90s", "name": "pay.example"})
	camel := structOf(t, map[string]any{"policy": "mesh", "pkiMode": "EVIDENCE_ONLY", "reattest": "90s", "name": "pay.example"})
	direct, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		typ   string
		value []byte
	}{
		{api.TypeValidator, direct},
		{api.TypeStruct, marshal(t, &xds.TypedStruct{TypeUrl: api.TypeValidator, Value: fields})},
		{api.TypeUDPAStruct, marshal(t, &udpa.TypedStruct{TypeUrl: api.TypeValidator, Value: fields})},
		{api.TypeStruct, marshal(t, &xds.TypedStruct{TypeUrl: api.TypeValidator, Value: camel})},
	} {
		if got, err := api.DecodeValidator(c.typ, c.value); err != nil || got != want {
			t.Errorf("%s: %+v, %v", c.typ, got, err)
		}
	}
}

func TestValidatorRefuses(t *testing.T) {
	good := func() *pb.AttestationValidator {
		return &pb.AttestationValidator{Policy: "mesh", PkiMode: pb.AttestationValidator_EVIDENCE_ONLY}
	}
	direct := func(edit func(*pb.AttestationValidator)) []byte {
		m := good()
		edit(m)
		return marshal(t, m)
	}
	wrapped := func(fields map[string]any) []byte {
		return marshal(t, &xds.TypedStruct{TypeUrl: api.TypeValidator, Value: structOf(t, fields)})
	}
	for name, c := range map[string]struct {
		typ, at string
		value   []byte
		code    attest.Code
	}{
		"nothing":               {api.TypeValidator, "pki_mode", nil, attest.CodeConfigMissing},
		"no mode":               {api.TypeValidator, "pki_mode", direct(func(m *pb.AttestationValidator) { m.PkiMode = 0 }), attest.CodeConfigMissing},
		"PKI_AND_EVIDENCE":      {api.TypeValidator, "pki_mode", direct(func(m *pb.AttestationValidator) { m.PkiMode = pb.AttestationValidator_PKI_AND_EVIDENCE }), attest.CodeConfigValue},
		"a mode of tomorrow":    {api.TypeValidator, "pki_mode", direct(func(m *pb.AttestationValidator) { m.PkiMode = 17 }), attest.CodeConfigValue},
		"no policy":             {api.TypeValidator, "policy", direct(func(m *pb.AttestationValidator) { m.Policy = "" }), attest.CodeConfigMissing},
		"a policy in two lines": {api.TypeValidator, "policy", direct(func(m *pb.AttestationValidator) { m.Policy = "a\nb" }), attest.CodeConfigValue},
		"a long policy":         {api.TypeValidator, "policy", direct(func(m *pb.AttestationValidator) { m.Policy = strings.Repeat("a", 256) }), attest.CodeConfigValue},
		"too often":             {api.TypeValidator, "reattest", direct(func(m *pb.AttestationValidator) { m.Reattest = durationpb.New(time.Millisecond) }), attest.CodeConfigValue},
		"0 s":                   {api.TypeValidator, "reattest", direct(func(m *pb.AttestationValidator) { m.Reattest = durationpb.New(0) }), attest.CodeConfigValue},
		"no time":               {api.TypeValidator, "reattest", direct(func(m *pb.AttestationValidator) { m.Reattest = &durationpb.Duration{Seconds: 1 << 60} }), attest.CodeConfigValue},
		"no name":               {api.TypeValidator, "name", direct(func(m *pb.AttestationValidator) { m.Name = "*.example" }), attest.CodeConfigValue},
		"unknown field":         {api.TypeValidator, "", append(direct(func(*pb.AttestationValidator) {}), protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)...), attest.CodeConfigUnknownKey},
		"unknown inner field":   {api.TypeValidator, "reattest", protowire.AppendBytes(protowire.AppendTag(direct(func(*pb.AttestationValidator) {}), 3, protowire.BytesType), []byte{8, 60, 0x98, 6, 1}), attest.CodeConfigUnknownKey},
		"garbage":               {api.TypeValidator, "", []byte{0xff}, attest.CodeConfigValue},
		"another type":          {api.TypeIdentity, "", direct(func(*pb.AttestationValidator) {}), attest.CodeConfigValue},
		"another prefix":        {"example.com/jurat.config.v1alpha1.AttestationValidator", "", direct(func(*pb.AttestationValidator) {}), attest.CodeConfigValue},
		"wrapped unknown field": {api.TypeStruct, "value", wrapped(map[string]any{"policy": "mesh", "pki_mode": "EVIDENCE_ONLY", "shadow": true}), attest.CodeConfigValue},
		"wrapped unknown mode":  {api.TypeStruct, "value", wrapped(map[string]any{"policy": "mesh", "pki_mode": "TRUST_ME"}), attest.CodeConfigValue},
		"wrapped other kind":    {api.TypeStruct, "value", wrapped(map[string]any{"policy": 7.0, "pki_mode": "EVIDENCE_ONLY"}), attest.CodeConfigValue},
		"wrapped nothing":       {api.TypeStruct, "pki_mode", marshal(t, &xds.TypedStruct{TypeUrl: api.TypeValidator}), attest.CodeConfigMissing},
		"wrapped untyped":       {api.TypeStruct, "type_url", marshal(t, &xds.TypedStruct{Value: structOf(t, nil)}), attest.CodeConfigMissing},
		"wrapped twice":         {api.TypeStruct, "type_url", marshal(t, &xds.TypedStruct{TypeUrl: api.TypeUDPAStruct, Value: structOf(t, nil)}), attest.CodeConfigValue},
		"wrapped something":     {api.TypeStruct, "", marshal(t, &xds.TypedStruct{TypeUrl: api.TypePolicy, Value: structOf(t, nil)}), attest.CodeConfigValue},
		"wrapped no value":      {api.TypeStruct, "value", marshal(t, &xds.TypedStruct{TypeUrl: api.TypeValidator, Value: &structpb.Struct{Fields: map[string]*structpb.Value{"a": {}}}}), attest.CodeConfigValue},
		"too much":              {api.TypeValidator, "", make([]byte, api.MaxMessage+1), attest.CodeOversized},
	} {
		_, err := api.DecodeValidator(c.typ, c.value)
		coded, ok := err.(*attest.Error)
		if !ok || coded.Code != c.code || coded.Subject != c.at {
			t.Errorf("%s: %v, want %s at %q", name, err, c.code, c.at)
		}
	}
	if _, err := (api.Validator{}).Encode(); attest.CodeOf(err) != attest.CodeConfigMissing {
		t.Errorf("an empty validator: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	if err := api.DecodeIdentity(api.TypeIdentity, nil); err != nil {
		t.Error(err)
	}
	if err := api.DecodeIdentity(api.TypeUDPAStruct, marshal(t, &udpa.TypedStruct{TypeUrl: api.TypeIdentity})); err != nil {
		t.Error(err)
	}
	if err := api.DecodeIdentity(api.TypeValidator, nil); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
	if err := api.DecodeIdentity(api.TypeIdentity, []byte{8, 1}); attest.CodeOf(err) != attest.CodeConfigUnknownKey {
		t.Error(err)
	}
}

func TestPolicyRefuses(t *testing.T) {
	good := api.Policy{Name: "mesh", Serial: 1, Text: "policy: mesh", Files: map[string][]byte{"a": nil}, References: []string{"vendors"}}
	if _, err := good.Encode(); err != nil {
		t.Fatal(err)
	}
	many := map[string][]byte{}
	for i := range api.MaxFiles + 1 {
		many[strings.Repeat("a", i/200+1)+string(rune('a'+i%200))] = nil
	}
	for at, edit := range map[string]func(*api.Policy){
		"name":                func(p *api.Policy) { p.Name = "" },
		"serial":              func(p *api.Policy) { p.Serial = 0 },
		"policy":              func(p *api.Policy) { p.Text = "" },
		"policy ":             func(p *api.Policy) { p.Text = strings.Repeat("a", api.MaxPolicy+1) },
		"files":               func(p *api.Policy) { p.Files = map[string][]byte{"": nil} },
		"files ":              func(p *api.Policy) { p.Files = many },
		"reference_values[0]": func(p *api.Policy) { p.References = []string{"\x01"} },
		"reference_values[1]": func(p *api.Policy) { p.References = []string{"a", "a"} },
		"reference_values":    func(p *api.Policy) { p.References = make([]string, api.MaxReferences+1) },
	} {
		p := good
		edit(&p)
		raw := marshal(t, &pb.AttestationPolicy{Name: p.Name, Serial: p.Serial, Policy: p.Text, Files: p.Files, ReferenceValues: p.References})
		for _, err := range []error{second(api.DecodePolicy(api.TypePolicy, raw)), second(p.Encode())} {
			if coded, ok := err.(*attest.Error); !ok || coded.Subject != strings.TrimSpace(at) {
				t.Errorf("%s: %v", at, err)
			}
		}
	}
	big := good
	big.Files = map[string][]byte{"a": make([]byte, api.MaxMessage)}
	if _, err := big.Encode(); attest.CodeOf(err) != attest.CodeOversized {
		t.Error(err)
	}
	big.Files, big.Text = nil, "\xff"
	if _, err := big.Encode(); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
	for at, r := range map[string]api.References{
		"files": {Name: "v", Serial: 1}, "name": {Serial: 1, Files: many}, "serial": {Name: "v", Files: map[string][]byte{"a": nil}},
	} {
		raw := marshal(t, &pb.ReferenceValues{Name: r.Name, Serial: r.Serial, Files: r.Files})
		for _, err := range []error{second(api.DecodeReferences(api.TypeReferences, raw)), second(r.Encode())} {
			if coded, ok := err.(*attest.Error); !ok || coded.Subject != at {
				t.Errorf("%s: %v", at, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

// What is written is read as what it was, and always in the same bytes.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-zA-Z0-9./|:~_-]{1,40}`)
		files := rapid.MapOfN(name, rapid.SliceOf(rapid.Byte()), 1, 5).Draw(t, "files")
		p := api.Policy{
			Name: name.Draw(t, "name"), Serial: rapid.Uint64Min(1).Draw(t, "serial"), Text: rapid.StringN(1, 50, 200).Draw(t, "text"),
			Files: files, References: rapid.SliceOfNDistinct(name, 0, 4, rapid.ID).Draw(t, "references"),
		}
		raw, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := api.DecodePolicy(api.TypePolicy, raw)
		if err != nil || !equalPolicy(got, p) {
			t.Fatalf("%+v became %+v, %v", p, got, err)
		}
		if again, _ := got.Encode(); !bytes.Equal(again, raw) {
			t.Fatal("other bytes")
		}
		r := api.References{Name: p.Name, Serial: p.Serial, Files: files}
		if raw, err = r.Encode(); err != nil {
			t.Fatal(err)
		}
		if back, err := api.DecodeReferences(api.TypeReferences, raw); err != nil || back.Name != r.Name || back.Serial != r.Serial || !equalFiles(back.Files, files) {
			t.Fatalf("%+v became %+v, %v", r, back, err)
		}
	})
}

func equalPolicy(a, b api.Policy) bool {
	return a.Name == b.Name && a.Serial == b.Serial && a.Text == b.Text && equalFiles(a.Files, b.Files) && (len(a.References) == 0 && len(b.References) == 0 || reflect.DeepEqual(a.References, b.References))
}

func equalFiles(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for name, v := range a {
		if w, ok := b[name]; !ok || !bytes.Equal(v, w) {
			return false
		}
	}
	return true
}

func FuzzDecode(f *testing.F) {
	v, _ := api.Validator{Policy: "mesh", Name: "a.example"}.Encode()
	p, _ := api.Policy{Name: "mesh", Serial: 1, Text: "policy: mesh", Files: map[string][]byte{"a": {1}}, References: []string{"v"}}.Encode()
	r, _ := api.References{Name: "v", Serial: 2, Files: map[string][]byte{"a": {1}}}.Encode()
	f.Add(uint8(0), v)
	f.Add(uint8(1), p)
	f.Add(uint8(2), r)
	f.Add(uint8(3), []byte{})
	fields, _ := structpb.NewStruct(map[string]any{"policy": "mesh", "pki_mode": "EVIDENCE_ONLY"})
	f.Add(uint8(4), marshal(f, &xds.TypedStruct{TypeUrl: api.TypeValidator, Value: fields}))
	f.Add(uint8(5), marshal(f, &udpa.TypedStruct{TypeUrl: api.TypePolicy, Value: fields}))
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte) {
		typ := []string{api.TypeValidator, api.TypePolicy, api.TypeReferences, api.TypeIdentity, api.TypeStruct, api.TypeUDPAStruct}[kind%6]
		if v, err := api.DecodeValidator(typ, raw); err == nil {
			if v.Policy == "" || v.Reattest < 0 || v.Reattest > 0 && v.Reattest < api.MinReattest {
				t.Fatalf("%+v", v)
			}
			if _, err := v.Encode(); err != nil {
				t.Fatal(err)
			}
		}
		if p, err := api.DecodePolicy(typ, raw); err == nil {
			if _, err := p.Encode(); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := api.DecodeReferences(typ, raw); err == nil {
			if _, err := r.Encode(); err != nil {
				t.Fatal(err)
			}
		}
		_ = api.DecodeIdentity(typ, raw)
	})
}
