package snp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jurat-tls/jurat/attest"
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

// fakeTSM behaves like the kernel's configfs-tsm.
type fakeTSM struct {
	mu          sync.Mutex
	mkdir       error
	provider    string
	table       []byte
	noTable     bool
	disturb     int // how many requests another process interferes with
	wrongData   bool
	short       bool
	outblob     error
	writes      map[string]int
	entries     map[string][]byte // directory to inblob
	collections int
}

func newFakeTSM() *fakeTSM {
	return &fakeTSM{provider: "sev_guest\n", writes: map[string]int{}, entries: map[string][]byte{}}
}

func (f *fakeTSM) Mkdir(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mkdir != nil {
		return f.mkdir
	}
	if _, ok := f.entries[path]; ok {
		return fs.ErrExist
	}
	f.entries[path] = nil
	return nil
}

func (f *fakeTSM) Rmdir(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.entries, path)
	return nil
}

func (f *fakeTSM) Write(path string, content []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if filepath.Base(path) != "inblob" || len(content) != 64 {
		return fs.ErrInvalid
	}
	f.entries[filepath.Dir(path)] = bytes.Clone(content)
	f.writes[filepath.Dir(path)]++
	return nil
}

func (f *fakeTSM) Read(path string, limit int) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir := filepath.Dir(path)
	if _, ok := f.entries[dir]; !ok {
		return nil, fs.ErrNotExist
	}
	switch filepath.Base(path) {
	case "provider":
		return []byte(f.provider), nil
	case "generation":
		return fmt.Appendf(nil, "%d\n", f.writes[dir]), nil
	case "auxblob":
		if f.noTable {
			return nil, fs.ErrNotExist
		}
		return f.table, nil
	case "outblob":
		f.collections++
		if f.outblob != nil {
			return nil, f.outblob
		}
		if f.disturb > 0 {
			f.disturb--
			f.writes[dir]++
		}
		data := bytes.Clone(f.entries[dir])
		if f.wrongData {
			data[0] ^= 1
		}
		out := firmware(data)
		if f.short {
			out = out[:100]
		}
		return out, nil
	}
	return nil, fs.ErrNotExist
}

func TestTSM(t *testing.T) {
	t.Parallel()
	data := attest.ReportData{1, 2, 3}
	for name, c := range map[string]struct {
		change      func(*fakeTSM)
		code        attest.Code
		collections int
	}{
		"works":                  {func(*fakeTSM) {}, "", 1},
		"no table":               {func(f *fakeTSM) { f.noTable = true }, "", 1},
		"malformed table":        {func(f *fakeTSM) { f.table = []byte("junk") }, "", 1},
		"disturbed twice":        {func(f *fakeTSM) { f.disturb = 2 }, "", 3},
		"disturbed all the time": {func(f *fakeTSM) { f.disturb = 9 }, attest.CodeAttesterFailed, 3},
		"over other data":        {func(f *fakeTSM) { f.wrongData = true }, attest.CodeAttesterFailed, 1},
		"short":                  {func(f *fakeTSM) { f.short = true }, attest.CodeAttesterFailed, 1},
		"firmware fails":         {func(f *fakeTSM) { f.outblob = errors.New("EIO") }, attest.CodeAttesterFailed, 1},
		"another TEE":            {func(f *fakeTSM) { f.provider = "tdx_guest\n" }, attest.CodeAttesterFailed, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFakeTSM()
			c.change(fake)
			ev, err := newAttester(tsm{fake, "/tsm"}).Attest(t.Context(), data)
			if attest.CodeOf(err) != c.code {
				t.Fatal(err)
			}
			if err == nil && (ev.Format != Format || !bytes.Equal(ev.Raw, firmware(data[:])) || len(ev.Endorsements) != 0) {
				t.Errorf("%+v", ev)
			}
			if fake.collections != c.collections {
				t.Errorf("%d collections, want %d", fake.collections, c.collections)
			}
			if len(fake.entries) != 0 {
				t.Errorf("left behind: %v", fake.entries)
			}
		})
	}
}

// TestTSMFiles runs over a directory: the attribute files are there before, as configfs makes them.
func TestTSMFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string][]byte{"provider": []byte("sev_guest\n"), "inblob": nil, "outblob": firmware([]byte{7}), "auxblob": nil, "generation": []byte("1\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	source := tsm{osFS{}, dir}
	// The file system does not count generations: the request is written and answered, but looks disturbed.
	report, _, err := source.once(dir, attest.ReportData{7})
	if !errors.Is(err, errDisturbed) || report != nil {
		t.Fatal(err)
	}
	if in, err := os.ReadFile(filepath.Join(dir, "inblob")); err != nil || len(in) != 64 || in[0] != 7 {
		t.Errorf("inblob %x, %v", in, err)
	}
	if _, err := (osFS{}).Read(filepath.Join(dir, "outblob"), 100); err == nil {
		t.Error("the bound is not kept")
	}
	if err := (osFS{}).Write(filepath.Join(dir, "absent"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a write creates the attribute: %v", err)
	}
	if err := source.entry(func(d string) error { _, err := os.Stat(d); return err }); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "jurat-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	absent := newFakeTSM()
	absent.mkdir = fs.ErrNotExist
	other := newFakeTSM()
	other.provider = "tdx_guest"
	forbidden := newFakeTSM()
	forbidden.mkdir = fs.ErrPermission
	here := tsm{newFakeTSM(), "/tsm"}
	dev := device{&fakeDevice{}}
	noDev := device{&fakeDevice{opening: errNoTEE}}
	for name, c := range map[string]struct {
		sources []collector
		want    string
		code    attest.Code
	}{
		"configfs":       {[]collector{here, dev}, SourceTSM, ""},
		"device":         {[]collector{tsm{absent, "/tsm"}, dev}, SourceDevice, ""},
		"another TEE":    {[]collector{tsm{other, "/tsm"}, noDev}, "", attest.CodeNoTEE},
		"neither":        {[]collector{tsm{absent, "/tsm"}, noDev}, "", attest.CodeNoTEE},
		"not permitted":  {[]collector{tsm{forbidden, "/tsm"}, dev}, "", attest.CodeAttesterFailed},
		"another system": {nil, "", attest.CodeNoTEE},
	} {
		source, err := firstOf(c.sources)
		if attest.CodeOf(err) != c.code || (err == nil && source.name() != c.want) {
			t.Errorf("%s: %v, %v", name, source, err)
		}
	}
	if _, err := os.Stat(devicePath); err != nil {
		if _, err := os.Stat(tsmDirectory); err != nil {
			if _, err := Probe(); attest.CodeOf(err) != attest.CodeNoTEE {
				t.Errorf("here: %v", err)
			}
			if _, err := NewAttester(); attest.CodeOf(err) != attest.CodeNoTEE {
				t.Errorf("here: %v", err)
			}
		}
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
	commands []uintptr
}

func (f *fakeDevice) open() error { return f.opening }

func (f *fakeDevice) request(command uintptr, request, response, certs []byte) (uint32, uint32, error) {
	f.commands = append(f.commands, command)
	switch command {
	case commandExtended:
		if f.extended != nil {
			return 0, 2, f.extended
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
		if f.plain != nil {
			return 0x13, 0, f.plain
		}
		if len(request) != reportRequestSize || certs != nil {
			return 0, 0, errors.New("EINVAL")
		}
	}
	response[0] = f.status
	binary.LittleEndian.PutUint32(response[4:], ReportSize)
	copy(response[responseHeader:], firmware(request[:64]))
	return 0, 0, nil
}

func TestDevice(t *testing.T) {
	t.Parallel()
	data := attest.ReportData{9}
	for name, c := range map[string]struct {
		device   fakeDevice
		code     attest.Code
		commands int
	}{
		"extended":             {fakeDevice{}, "", 1},
		"larger table":         {fakeDevice{wants: 8 * pageSize}, "", 2},
		"too large a table":    {fakeDevice{wants: 1 << 20}, "", 2},
		"odd size":             {fakeDevice{wants: 8*pageSize + 1}, "", 2},
		"no certificates":      {fakeDevice{extended: errors.New("ENOTTY")}, "", 2},
		"firmware refuses":     {fakeDevice{extended: errors.New("EIO"), plain: errors.New("EIO")}, attest.CodeAttesterFailed, 2},
		"firmware status":      {fakeDevice{status: 0x16}, attest.CodeAttesterFailed, 1},
		"status, no extension": {fakeDevice{status: 0x16, extended: errors.New("ENOTTY")}, attest.CodeAttesterFailed, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev, err := newAttester(device{&c.device}).Attest(t.Context(), data)
			if attest.CodeOf(err) != c.code || err == nil && !bytes.Equal(ev.Raw, firmware(data[:])) {
				t.Error(err)
			}
			if len(c.device.commands) != c.commands {
				t.Errorf("commands %v", c.device.commands)
			}
		})
	}
}

func TestAttesterRefuses(t *testing.T) {
	t.Parallel()
	a := newAttester(tsm{newFakeTSM(), "/tsm"})
	if _, err := a.Attest(t.Context(), attest.ReportData{}); attest.CodeOf(err) != attest.CodeNoExpectation {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Attest(ctx, attest.ReportData{1}); attest.CodeOf(err) != attest.CodeAttesterFailed || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if a.Source() != SourceTSM {
		t.Error(a.Source())
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
		for at := range r.signed {
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
			if !v.signatures.verify(r.ark, ask.SignatureAlgorithm, ask.RawTBSCertificate, ask.Signature) {
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
	if _, err := LeafRefs([]byte("x")); attest.CodeOf(err) != attest.CodeMalformed {
		t.Error(err)
	}
}
