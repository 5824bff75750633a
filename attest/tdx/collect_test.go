package tdx

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
)

// quoteOver has the form of a quote and no signature.
func quoteOver(version uint16, data attest.ReportData) []byte {
	header := make([]byte, 48)
	binary.LittleEndian.PutUint16(header, version)
	if version == 5 {
		header = append(header, 3, 0, 0, 0, 0, 0)
	}
	body := make([]byte, 584)
	copy(body[520:], data[:])
	return append(append(header, body...), "signature"...)
}

type fakeSource struct{ quote []byte }

func (fakeSource) Name() string { return "fake" }
func (fakeSource) Probe() error { return nil }
func (f fakeSource) Collect(context.Context, attest.ReportData) (tsm.Report, error) {
	return tsm.Report{Out: f.quote}, nil
}

func TestAttester(t *testing.T) {
	t.Parallel()
	data := attest.ReportData{1, 2, 3}
	dir := t.TempDir()
	log, long := filepath.Join(dir, "log"), filepath.Join(dir, "long")
	for name, size := range map[string]int{log: 100, long: attest.MaxEventLog + 1} {
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := quoteOver(4, data)
	for name, c := range map[string]struct {
		quote []byte
		ccel  string
		code  attest.Code
		log   int
	}{
		"version 4":        {good, filepath.Join(dir, "absent"), "", 0},
		"version 5":        {quoteOver(5, data), log, "", 100},
		"version 3":        {quoteOver(3, data), log, attest.CodeAttesterFailed, 0},
		"over other data":  {quoteOver(4, attest.ReportData{1, 2}), log, attest.CodeAttesterFailed, 0},
		"other data, v5":   {quoteOver(5, attest.ReportData{1, 2}), log, attest.CodeAttesterFailed, 0},
		"empty":            {nil, log, attest.CodeAttesterFailed, 0},
		"header alone":     {good[:48], log, attest.CodeAttesterFailed, 0},
		"truncated":        {good[:48+583], log, attest.CodeAttesterFailed, 0},
		"log too long":     {good, long, attest.CodeAttesterFailed, 0},
		"log not readable": {good, dir, attest.CodeAttesterFailed, 0},
	} {
		ev, err := newAttester(fakeSource{c.quote}, c.ccel).Attest(t.Context(), data)
		if attest.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (ev.Format != "tdx" || !bytes.Equal(ev.Raw, c.quote) || len(ev.EventLog) != c.log) {
			t.Errorf("%s: %s, %d bytes, log of %d", name, ev.Format, len(ev.Raw), len(ev.EventLog))
		}
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	name, err := Probe()
	if _, here := NewAttester(); (here == nil) != (err == nil) {
		t.Errorf("probe %v, attester %v", err, here)
	}
	if err == nil && name != SourceTSM && name != SourceQGS || err != nil && attest.CodeOf(err) != attest.CodeNoTEE && attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Errorf("%q, %v", name, err)
	}
}

// fakeModule behaves like the kernel's device.
type fakeModule struct {
	opening, failing error
	change           func([]byte) []byte
}

func (m fakeModule) open() error { return m.opening }
func (m fakeModule) report(data attest.ReportData) ([]byte, error) {
	report := make([]byte, 1024)
	copy(report[128:], data[:])
	if m.change != nil {
		report = m.change(report)
	}
	return report, m.failing
}

// fakeService behaves like Intel's quote generation service: it checks the request as that does, and quotes the report
// that it gets. The hook changes the answer, with the length before it.
type fakeService struct {
	id      []byte
	change  func([]byte) []byte
	fault   error // in the request
	streams []*counted
}

func (s *fakeService) dial(_ context.Context, port uint32) (stream, error) {
	if port != 4050 {
		return nil, errors.New("connection refused")
	}
	guest, host := net.Pipe()
	s.streams = append(s.streams, &counted{Conn: guest})
	go func() {
		defer host.Close()
		var prefix [4]byte
		if _, err := io.ReadFull(host, prefix[:]); err != nil {
			return // a probe
		}
		request := make([]byte, binary.BigEndian.Uint32(prefix[:]))
		if _, err := io.ReadFull(host, request); err != nil {
			s.fault = err
		}
		le := binary.LittleEndian
		report := request[24:]
		if le.Uint16(request) != 1 || le.Uint32(request[4:]) != 0 || int(le.Uint32(request[8:])) != len(request) || le.Uint32(request[12:]) != 0 ||
			int(le.Uint32(request[16:])) != len(report) || le.Uint32(request[20:]) != 0 || len(report) != 1024 {
			s.fault = errors.New("malformed request")
		}
		answer := s.answer(quoteOver(4, attest.ReportData(report[128:192])))
		if s.change != nil {
			answer = s.change(answer)
		}
		_, _ = host.Write(answer)
	}()
	return s.streams[len(s.streams)-1], nil
}

// counted counts how often it is closed.
type counted struct {
	net.Conn
	closed atomic.Int32
}

func (c *counted) Close() error {
	c.closed.Add(1)
	return c.Conn.Close()
}

func (s *fakeService) answer(quote []byte) []byte {
	le := binary.LittleEndian
	message := []byte{1, 0, 7, 0, 1, 0, 0, 0} // version 1.7
	message = le.AppendUint32(message, uint32(24+len(s.id)+len(quote)))
	message = le.AppendUint32(message, 0)
	message = le.AppendUint32(message, uint32(len(s.id)))
	message = le.AppendUint32(message, uint32(len(quote)))
	message = append(append(message, s.id...), quote...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

func config(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tdx-attest.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestQuoteGenerationService(t *testing.T) {
	t.Parallel()
	data := attest.ReportData{1, 2, 3}
	set := func(at int, v byte) func([]byte) []byte {
		return func(a []byte) []byte { a[at] = v; return a }
	}
	broken := errors.New("broken")
	port := "# comment\nport = 4050 # Intel's\n"
	for name, c := range map[string]struct {
		config  string
		module  fakeModule
		service fakeService
		works   bool
		err     error // what it is, where that matters
	}{
		"works":                     {port, fakeModule{}, fakeService{}, true, nil},
		"with the id of its key":    {port, fakeModule{}, fakeService{id: make([]byte, 16)}, true, nil},
		"nobody listens":            {"port=4051", fakeModule{}, fakeService{}, false, nil},
		"no port":                   {"", fakeModule{}, fakeService{}, false, tsm.ErrAbsent},
		"the module fails":          {port, fakeModule{failing: broken}, fakeService{}, false, broken},
		"the module's other data":   {port, fakeModule{change: set(128, 9)}, fakeService{}, false, nil},
		"the module's last byte":    {port, fakeModule{change: set(191, 9)}, fakeService{}, false, nil},
		"the module's short report": {port, fakeModule{change: func(r []byte) []byte { return r[:1023] }}, fakeService{}, false, nil},
		"no answer":                 {port, fakeModule{}, fakeService{change: func([]byte) []byte { return nil }}, false, io.EOF},
		"half of the length":        {port, fakeModule{}, fakeService{change: func(a []byte) []byte { return a[:2] }}, false, nil},
		"truncated":                 {port, fakeModule{}, fakeService{change: func(a []byte) []byte { return a[:len(a)-1] }}, false, nil},
		"too long":                  {port, fakeModule{}, fakeService{change: set(0, 1)}, false, nil},
		"version 2":                 {port, fakeModule{}, fakeService{change: set(4, 2)}, false, nil},
		"another answer":            {port, fakeModule{}, fakeService{change: set(8, 3)}, false, nil},
		"another size":              {port, fakeModule{}, fakeService{change: set(12, 0)}, false, nil},
		"the service fails":         {port, fakeModule{}, fakeService{change: set(16, 1)}, false, nil},
		"id beyond its message":     {port, fakeModule{}, fakeService{change: set(20, 255)}, false, nil},
		"quote beyond its message":  {port, fakeModule{}, fakeService{change: set(24, 255)}, false, nil},
		"too long an id":            {port, fakeModule{}, fakeService{id: make([]byte, maxQGSID+1)}, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := qgs{config: config(t, c.config), module: c.module, dial: c.service.dial}
			r, err := source.Collect(t.Context(), data)
			if (err == nil) != c.works || c.err != nil && !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			if c.service.fault != nil {
				t.Error(c.service.fault)
			}
			if err == nil && !bytes.Equal(r.Out, quoteOver(4, data)) {
				t.Errorf("%x", r.Out)
			}
			for _, s := range c.service.streams {
				if n := s.closed.Load(); n != 1 {
					t.Errorf("closed %d times", n)
				}
			}
			if ev, err := newAttester(source, "/nonexistent").Attest(t.Context(), data); (err == nil) != c.works || err == nil && ev.Format != "tdx" {
				t.Error(err)
			}
		})
	}
}

func TestQuoteGenerationServiceProbe(t *testing.T) {
	t.Parallel()
	denied := errors.New("permission denied")
	for name, c := range map[string]struct {
		config string
		module fakeModule
		want   error // nil: there
		broken bool  // there, but does not work
	}{
		"there":          {config(t, "port=4050"), fakeModule{}, nil, false},
		"no file":        {"/nonexistent/file", fakeModule{}, tsm.ErrAbsent, false},
		"no port":        {config(t, "other = 4050\nport 4050"), fakeModule{}, tsm.ErrAbsent, false},
		"no value":       {config(t, "port"), fakeModule{}, tsm.ErrAbsent, false},
		"no module":      {config(t, "port=4050"), fakeModule{opening: tsm.ErrAbsent}, tsm.ErrAbsent, false},
		"not permitted":  {config(t, "port=4050"), fakeModule{opening: denied}, denied, true},
		"nobody listens": {config(t, "port=9"), fakeModule{}, tsm.ErrAbsent, false},
		"no number":      {config(t, "port = x"), fakeModule{}, nil, true},
		"port 0":         {config(t, "port = 0"), fakeModule{}, nil, true},
		"large port":     {config(t, "port = 4294967296"), fakeModule{}, nil, true},
		"long file":      {config(t, "port=4050\n"+string(make([]byte, maxQGSConfig))), fakeModule{}, nil, true},
	} {
		service := new(fakeService)
		err := qgs{config: c.config, module: c.module, dial: service.dial}.Probe()
		switch {
		case c.broken:
			if err == nil || errors.Is(err, tsm.ErrAbsent) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		case !errors.Is(err, c.want):
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (qgs{config: config(t, "")}).port(); !errors.Is(err, tsm.ErrAbsent) {
		t.Error(err)
	}
	if (qgs{}).Name() != SourceQGS {
		t.Error("name")
	}
}

// TestSilentService: a service that accepts and never answers holds nobody who gives up.
func TestSilentService(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	dial := func(context.Context, uint32) (stream, error) {
		guest, host := net.Pipe()
		go func() {
			_, _ = io.ReadFull(host, make([]byte, 4+24+1024))
			close(asked)
		}()
		return guest, nil
	}
	source := qgs{config: config(t, "port=4050"), module: fakeModule{}, dial: dial}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := source.Collect(ctx, attest.ReportData{1}); err == nil {
		t.Error("answered")
	}
}

// mute takes no request, and answers all the same.
type mute struct{ io.Reader }

func (mute) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (mute) Close() error              { return nil }

func TestUnsentRequest(t *testing.T) {
	t.Parallel()
	answer := new(fakeService).answer(quoteOver(4, attest.ReportData{1}))
	dial := func(context.Context, uint32) (stream, error) { return mute{bytes.NewReader(answer)}, nil }
	source := qgs{config: config(t, "port=4050"), module: fakeModule{}, dial: dial}
	if _, err := source.Collect(t.Context(), attest.ReportData{1}); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func TestMessageBounds(t *testing.T) {
	t.Parallel()
	long := io.MultiReader(bytes.NewReader(binary.BigEndian.AppendUint32(nil, maxQGSAnswer+1)), bytes.NewReader(make([]byte, maxQGSAnswer+1)))
	if _, err := readMessage(long); err == nil {
		t.Error("too long an answer")
	}
	if _, err := readMessage(bytes.NewReader(nil)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	good := new(fakeService).answer(nil)[4:]
	for n := range good {
		if _, err := parseQuoteAnswer(good[:n]); err == nil {
			t.Errorf("%d bytes are an answer", n)
		}
	}
}

func FuzzQuoteAnswer(f *testing.F) {
	good := new(fakeService).answer(quoteOver(4, attest.ReportData{1}))
	f.Add(good)
	f.Add((&fakeService{id: make([]byte, 16)}).answer([]byte("quote")))
	f.Add(good[:30])
	f.Fuzz(func(t *testing.T, raw []byte) {
		message, err := readMessage(bytes.NewReader(raw))
		if err != nil {
			return
		}
		quote, err := parseQuoteAnswer(message)
		if err == nil && !bytes.HasSuffix(message, quote) {
			t.Fatal("a quote that is not in the answer")
		}
		if _, err := signedData(quote); err == nil && len(quote) < 632 {
			t.Fatal("report data of a short quote")
		}
	})
}
