package snp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
	"github.com/jurat-tls/jurat/test/vectors"
)

// firmware answers with a well-formed report that nobody signed.
func firmware(data []byte) []byte {
	r := make([]byte, ReportSize)
	r[0] = 3
	r[0x0a] = 2 // policy bit 17
	copy(r[0x50:0x90], data)
	r[0x34] = 1
	r[0x188], r[0x189] = 0x19, 1
	return r
}

// fakeSource answers with firmware's report, changed.
type fakeSource struct {
	change func([]byte) []byte
	table  []byte
}

func (fakeSource) Name() string { return "fake" }
func (fakeSource) Probe() error { return nil }
func (f fakeSource) Collect(_ context.Context, data attest.ReportData) (tsm.Report, error) {
	report := firmware(data[:])
	if f.change != nil {
		report = f.change(report)
	}
	return tsm.Report{Out: report, Aux: f.table}, nil
}

func TestAttester(t *testing.T) {
	t.Parallel()
	data := attest.ReportData{1, 2, 3}
	for name, c := range map[string]struct {
		source fakeSource
		code   attest.Code
	}{
		"works":           {fakeSource{}, ""},
		"malformed table": {fakeSource{table: []byte("junk")}, ""},
		"over other data": {fakeSource{change: func(r []byte) []byte { r[0x50] ^= 1; return r }}, attest.CodeAttesterFailed},
		"short":           {fakeSource{change: func(r []byte) []byte { return r[:100] }}, attest.CodeAttesterFailed},
		"empty":           {fakeSource{change: func([]byte) []byte { return nil }}, attest.CodeAttesterFailed},
	} {
		ev, err := newAttester(c.source).Attest(t.Context(), data)
		if attest.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (ev.Format != Format || !bytes.Equal(ev.Raw, firmware(data[:])) || len(ev.Endorsements) != 0) {
			t.Errorf("%s: %+v", name, ev)
		}
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	name, err := Probe()
	if _, here := NewAttester(); (here == nil) != (err == nil) {
		t.Errorf("probe %v, attester %v", err, here)
	}
	if err == nil && name != SourceTSM && name != SourceDevice || err != nil && attest.CodeOf(err) != attest.CodeNoTEE && attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Errorf("%q, %v", name, err)
	}
}

// TestStapledByTheAttester: the host's table reaches the evidence.
func TestStapledByTheAttester(t *testing.T) {
	t.Parallel()
	pair := recordedPairs(t)[2]
	r, err := Parse(pair.report)
	if err != nil {
		t.Fatal(err)
	}
	source := fakeSource{change: func([]byte) []byte { return pair.report }, table: table(guidVCEK, pair.leaf)}
	ev, err := newAttester(source).Attest(t.Context(), attest.ReportData(r.ReportData))
	if err != nil || len(ev.Endorsements) != 1 {
		t.Errorf("%+v, %v", ev, err)
	}
}

// fakeDevice behaves like the kernel's /dev/sev-guest.
type fakeDevice struct {
	opening  error
	table    []byte
	wants    uint32 // size of the table that the host has, in the request's unit of pages
	extended error  // what the extended request fails with
	plain    error
	status   byte
	size     uint32    // of the report, by its own word; 0: right
	vmm      uint32    // the host's part of a failure
	odd      [2]uint32 // firmware's and host's errors without an error of the system call
	commands []uintptr
}

func (f *fakeDevice) open() error { return f.opening }

func (f *fakeDevice) request(command uintptr, request, response, certs []byte) (uint32, uint32, error) {
	f.commands = append(f.commands, command)
	switch command {
	case commandExtended:
		if f.extended != nil {
			if f.wants > 0 {
				binary.LittleEndian.PutUint32(request[104:], f.wants)
			}
			return 0, f.vmm, f.extended
		}
		if len(request) != extendedRequestSize || binary.LittleEndian.Uint32(request[104:]) != uint32(len(certs)) || len(certs)%pageSize != 0 {
			return 0, 0, errors.New("EINVAL")
		}
		if f.wants > uint32(len(certs)) {
			binary.LittleEndian.PutUint32(request[104:], f.wants)
			return 0, vmmInvalidLength, errors.New("EIO")
		}
		copy(certs, f.table)
	case commandReport:
		if len(request) != reportRequestSize || certs != nil {
			return 0, 0, errors.New("EINVAL")
		}
	}
	response[0] = f.status
	binary.LittleEndian.PutUint32(response[4:], ReportSize)
	if f.size != 0 {
		binary.LittleEndian.PutUint32(response[4:], f.size)
	}
	copy(response[responseHeader:], firmware(request[:64]))
	if command == commandReport && f.plain != nil {
		return 0, 0, f.plain
	}
	return f.odd[0], f.odd[1], nil
}

func TestDevice(t *testing.T) {
	t.Parallel()
	data := attest.ReportData{9}
	first, again, both := []uintptr{commandExtended}, []uintptr{commandExtended, commandExtended}, []uintptr{commandExtended, commandReport}
	for name, c := range map[string]struct {
		device   fakeDevice
		code     attest.Code
		commands []uintptr
	}{
		"extended":             {fakeDevice{}, "", first},
		"larger table":         {fakeDevice{wants: 8 * pageSize}, "", again},
		"too large a table":    {fakeDevice{wants: 1 << 20}, "", both},
		"odd size":             {fakeDevice{wants: 8*pageSize + 1}, "", both},
		"no certificates":      {fakeDevice{extended: errors.New("ENOTTY")}, "", both},
		"plain: an error":      {fakeDevice{extended: errors.New("ENOTTY"), plain: errors.New("EIO")}, attest.CodeAttesterFailed, both},
		"firmware refuses":     {fakeDevice{extended: errors.New("EIO"), plain: errors.New("EIO")}, attest.CodeAttesterFailed, both},
		"firmware's own error": {fakeDevice{odd: [2]uint32{7, 0}}, attest.CodeAttesterFailed, both},
		"host's own error":     {fakeDevice{odd: [2]uint32{0, 2}}, attest.CodeAttesterFailed, both},
		"the same size again":  {fakeDevice{extended: errors.New("EIO"), vmm: vmmInvalidLength, wants: firstTableSize}, "", both},
		"another host's error": {fakeDevice{extended: errors.New("EIO"), vmm: 9, wants: 8 * pageSize}, "", both},
		"another size":         {fakeDevice{size: ReportSize - 1}, attest.CodeAttesterFailed, first},
		"firmware status":      {fakeDevice{status: 0x16}, attest.CodeAttesterFailed, first},
		"status, no extension": {fakeDevice{status: 0x16, extended: errors.New("ENOTTY")}, attest.CodeAttesterFailed, both},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := device{&c.device}.Collect(t.Context(), data)
			if (err == nil) != (c.code == "") || err == nil && !bytes.Equal(r.Out, firmware(data[:])) {
				t.Error(err)
			}
			if !slices.Equal(c.device.commands, c.commands) {
				t.Errorf("commands %v", c.device.commands)
			}
			if _, err := newAttester(device{&c.device}).Attest(t.Context(), data); attest.CodeOf(err) != c.code {
				t.Error(err)
			}
		})
	}
}

// table encodes a certificate table.
func table(entries ...any) []byte {
	header := make([]byte, certEntrySize*(len(entries)/2+1))
	var body []byte
	for i := 0; i < len(entries); i += 2 {
		id, content := entries[i].(guid), entries[i+1].([]byte)
		at := header[i/2*certEntrySize:]
		copy(at, id[:])
		binary.LittleEndian.PutUint32(at[16:], uint32(len(header)+len(body)))
		binary.LittleEndian.PutUint32(at[20:], uint32(len(content)))
		body = append(body, content...)
	}
	return append(header, body...)
}

func TestCertTable(t *testing.T) {
	t.Parallel()
	good := table(guidVCEK, []byte("leaf"), guidASK, []byte("ask"))
	got, err := parseCertTable(append(good, make([]byte, 100)...))
	if err != nil || string(got[guidVCEK]) != "leaf" || string(got[guidASK]) != "ask" || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	if got, err := parseCertTable(make([]byte, 4*pageSize)); err != nil || len(got) != 0 {
		t.Errorf("empty: %v, %v", got, err)
	}
	if got, err := parseCertTable(nil); err != nil || got != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	entry := func(offset, length uint32) []byte {
		raw := bytes.Clone(good)
		binary.LittleEndian.PutUint32(raw[16:], offset)
		binary.LittleEndian.PutUint32(raw[20:], length)
		return raw
	}
	var endless []byte
	for i := range 100 {
		endless = append(endless, byte(i+1))
		endless = append(endless, make([]byte, certEntrySize-1)...)
		binary.LittleEndian.PutUint32(endless[i*certEntrySize+16:], 2400)
	}
	for name, raw := range map[string][]byte{
		"short":           good[:10],
		"no end":          good[:certEntrySize],
		"twice":           table(guidVCEK, []byte("a"), guidVCEK, []byte("b")),
		"past the end":    entry(uint32(len(good)-1), 2),
		"into the header": entry(0, 4),
		"overflow":        entry(0xffffffff, 0xffffffff),
		"half an end":     append(append(bytes.Clone(good[:24]), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), make([]byte, 40)...),
		"many":            endless,
		"large":           make([]byte, maxCertTable+1),
	} {
		if _, err := parseCertTable(raw); attest.CodeOf(err) != attest.CodeMalformedEndorsement {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSignatureCoversEveryByte shows that it is the signature that covers every byte, not only the checks before it.
func TestSignatureCoversEveryByte(t *testing.T) {
	t.Parallel()
	for _, v := range recordedPairs(t) {
		r, err := Parse(v.report)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := parseCertificate(v.leaf)
		if err != nil {
			t.Fatal(err)
		}
		l, err := parseLeaf(cert)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifySignature(r, l.key); err != nil {
			t.Fatal(err)
		}
		stride := 1
		if testing.Short() {
			stride = 29
		}
		for at := 0; at < len(r.signed); at += stride {
			r.signed[at] ^= 0x10
			if attest.CodeOf(verifySignature(r, l.key)) != attest.CodeSignature {
				t.Fatalf("%s: byte %#x is not covered", v.name, at)
			}
			r.signed[at] ^= 0x10
		}
	}
}

// TestStaplesWhatFits: the host's certificates are stapled where they fit the report, and left out where not.
func TestStaplesWhatFits(t *testing.T) {
	t.Parallel()
	pairs := recordedPairs(t)
	ask := AMDRoots().of(turin).intermediates[0].Raw
	for _, c := range []struct {
		name  string
		pair  int
		table []byte
		want  int
	}{
		{"leaf and ASK", 2, table(guidVCEK, pairs[2].leaf, guidASK, ask), 2},
		{"leaf alone", 2, table(guidVCEK, pairs[2].leaf), 1},
		{"ASK of another", 0, table(guidVCEK, pairs[0].leaf, guidASK, ask), 1},
		{"junk ASK and list", 2, table(guidVCEK, pairs[2].leaf, guidASK, []byte("x"), guidCRL, []byte("y")), 1},
		{"leaf of another product", 2, table(guidVCEK, pairs[0].leaf), 0},
		{"leaf of another chip", 0, table(guidVCEK, vectors.Read(t, "snp/milan-v2.bad-vcek-legacy.der")), 0},
		{"VLEK", 1, table(guidVLEK, pairs[1].leaf), 1},
		{"VCEK under the VLEK's name", 1, table(guidVLEK, pairs[0].leaf), 0},
		{"ASK as the leaf", 2, table(guidVCEK, ask), 0},
		{"VLEK under the VCEK's name", 1, table(guidVCEK, pairs[1].leaf), 0},
		{"junk", 0, table(guidVCEK, []byte("x")), 0},
		{"nothing", 0, nil, 0},
	} {
		r, err := Parse(pairs[c.pair].report)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := parseCertTable(c.table)
		if err != nil {
			t.Fatal(err)
		}
		if got := endorsements(r, entries); len(got) != c.want {
			t.Errorf("%s: %d stapled, want %d", c.name, len(got), c.want)
		}
	}
}

func TestAMDRootsAreComplete(t *testing.T) {
	t.Parallel()
	roots := AMDRoots()
	for _, g := range generations {
		r := roots.of(g)
		if r == nil || len(r.intermediates) != 2 {
			t.Fatalf("%s: %+v", g.name, r)
		}
		var v Verifier
		for i, name := range []string{vcek.issuerName(g), vlek.issuerName(g)} {
			ask := r.intermediates[i]
			if err := checkAuthority(ask, name); err != nil {
				t.Error(err)
			}
			if !v.memory.verify(r.ark, ask.RawTBSCertificate, ask.Signature) {
				t.Errorf("%s is not signed by its ARK", name)
			}
		}
	}
}

func TestLeafRefs(t *testing.T) {
	t.Parallel()
	pairs := recordedPairs(t)
	for i, want := range []struct {
		refs   int
		prefix string
		code   attest.Code
	}{{2, "/vcek/v1/Milan/c38427a3", ""}, {0, "", attest.CodeEndorsementMissing}, {1, "/vcek/v1/Turin/3b42092f69c656d3?fmcSPL=00&blSPL=01&teeSPL=00&snpSPL=02&ucodeSPL=71", ""}} {
		refs, err := LeafRefs(pairs[i].report)
		if attest.CodeOf(err) != want.code || len(refs) != want.refs || want.refs > 0 && !strings.HasPrefix(refs[0].Path, want.prefix) {
			t.Errorf("%s: %v, %v", pairs[i].name, refs, err)
		}
	}
	reserved := firmware(nil)
	reserved[0], reserved[0x188], reserved[0x189], reserved[0x182], reserved[0x1a0] = 2, 0, 0, 1, 1
	if _, err := LeafRefs(reserved); attest.CodeOf(err) != attest.CodeReservedBits {
		t.Error(err)
	}
	lent := firmware(nil)
	lent[0x48], lent[0x1a0] = 1<<2, 1 // a VLEK, of a chip that is named
	var e *attest.Error
	if _, err := LeafRefs(lent); attest.CodeOf(err) != attest.CodeEndorsementMissing || !errors.As(err, &e) || !strings.Contains(e.Hint, "cloud provider") {
		t.Error(err)
	}
	masked := firmware(nil)
	if _, err := LeafRefs(masked); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Error(err)
	}
	if _, err := LeafRefs([]byte("x")); attest.CodeOf(err) != attest.CodeMalformed {
		t.Error(err)
	}
}
