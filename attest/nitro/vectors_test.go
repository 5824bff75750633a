package nitro_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/test/vectors"
)

// recorded is a document that a real enclave got.
func recorded(t testing.TB, name string) (*attest.Evidence, *nitro.Document) {
	t.Helper()
	raw := vectors.Read(t, "nitro/"+name+".cose")
	document := nitro.Unwrap(raw) // dstack keeps them in an envelope
	if len(document) >= len(raw) {
		t.Fatal("no envelope")
	}
	d, err := nitro.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	return &attest.Evidence{Format: nitro.Format, Raw: document}, d
}

func TestRecordings(t *testing.T) {
	t.Parallel()
	for name, debug := range map[string]attest.Flag{"production": attest.Off, "debug": attest.On} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev, d := recorded(t, name)
			verifier := nitro.NewVerifier(nitro.AWSRoots())
			c, err := verifier.Verify(t.Context(), ev, nil, d.Timestamp)
			if err != nil {
				t.Fatal(err)
			}
			if c.Root != "sha256:641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b" || c.Debug != debug || c.Module != d.ModuleID ||
				c.ReportData.IsZero() != (name == "debug") || !bytes.Equal(c.ReportData[:], d.UserData) || !c.Made.Equal(d.Timestamp) || len(d.PCRs) != 16 || !bytes.Equal(c.Measured["launch"], d.PCRs[0]) {
				t.Errorf("%+v", c)
			}
			if p := c.Revocation.Problem; p == nil || p.Code != attest.CodeEndorsementMissing {
				t.Errorf("revocation: %+v", c.Revocation)
			}
			// Leaves live for three hours.
			for _, at := range []time.Time{d.Timestamp.Add(-time.Hour), d.Timestamp.Add(4 * time.Hour)} {
				if _, err := verifier.Verify(t.Context(), ev, nil, at); attest.CodeOf(err) != attest.CodeChainExpired {
					t.Errorf("at %v: %v", at, err)
				}
			}
			if _, err := nitro.NewVerifier(forge{}.make(t).roots).Verify(t.Context(), ev, nil, d.Timestamp); attest.CodeOf(err) != attest.CodeUntrustedRoot {
				t.Errorf("under another root: %v", err)
			}
			for at := 0; at < len(ev.Raw); at += 7 * step() {
				bad := &attest.Evidence{Format: nitro.Format, Raw: slices.Clone(ev.Raw)}
				bad.Raw[at] ^= 1 << (at % 8)
				if _, err := verifier.Verify(t.Context(), bad, nil, d.Timestamp); err == nil || attest.CodeOf(err) == attest.CodeInternal {
					t.Fatalf("byte %d: %v", at, err)
				}
			}
		})
	}
	root := forge{}.make(t)
	if got := nitro.Unwrap(root.evidence.Raw); !bytes.Equal(got, root.evidence.Raw) {
		t.Error("a bare document is changed")
	}
}

// What is not quite the envelope stays what it is, and is then no document.
func TestUnwrap(t *testing.T) {
	t.Parallel()
	document := bytes.Repeat([]byte{7}, 70)
	event := []byte{0x04, 1 << 2, 'e', 2 << 2, 1, 2} // one, named "e", of two bytes
	build := func(head, events, tail []byte) []byte {
		size := []byte{byte(len(document)<<2&0xff | 1), byte(len(document) >> 6)}
		return slices.Concat(head, size, document, events, make([]byte, 64), tail)
	}
	good := build([]byte{0, 2}, event, []byte{4, '{'})
	for name, c := range map[string]struct {
		in []byte
		ok bool
	}{
		"envelope":                {good, true},
		"without events":          {build([]byte{0, 2}, []byte{0}, []byte{0}), true},
		"another version":         {build([]byte{1, 2}, event, []byte{0}), false},
		"another platform":        {build([]byte{0, 1}, event, []byte{0}), false},
		"a byte more":             {append(slices.Clone(good), 0), false},
		"a byte less":             {good[:len(good)-1], false},
		"endless events":          {build([]byte{0, 2}, []byte{0xfe, 0xff, 0xff, 0xff}, []byte{0}), false},
		"a number of eight bytes": {slices.Concat([]byte{0, 2, 63<<2 | 3, 0, 0, 0, 0, 0, 0, 0}, document[:63], []byte{0}, make([]byte, 64), []byte{0}), false},
		"a number of 2^32":        {build([]byte{0, 2}, []byte{3, 0, 0, 0, 0, 0}, []byte{0}), false},
		"empty":                   {nil, false},
		"first byte of it":        {good[:1], false},
		"first two bytes":         {good[:2], false},
		"document that is cut":    {good[:40], false},
	} {
		got := nitro.Unwrap(c.in)
		want := c.in
		if c.ok {
			want = document
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %x", name, got)
		}
	}
}
