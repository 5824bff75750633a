package collect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/test/vectors"
)

var wanted = attest.ReportData{1, 2, 3}

// unsigned is a quote as far as an attester looks.
func unsigned(data attest.ReportData) []byte {
	q := make([]byte, 1000)
	q[0] = quoteVersion
	copy(q[dataAt:], data[:])
	return q
}

// openEnclave puts a header before a quote.
func openEnclave(version, kind uint32, size uint64, quote []byte) []byte {
	h := binary.LittleEndian.AppendUint32(nil, version)
	h = binary.LittleEndian.AppendUint32(h, kind)
	return append(binary.LittleEndian.AppendUint64(h, size), quote...)
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	good := unsigned(wanted)
	changed := func(at int) []byte {
		q := bytes.Clone(good)
		q[at] ^= 1
		return q
	}
	for name, c := range map[string]struct {
		quote []byte
		ok    bool
	}{
		"good":              {good, true},
		"shortest":          {good[:reportAt+reportSize], true},
		"longest":           {append(bytes.Clone(good), make([]byte, maxQuote-len(good))...), true},
		"empty":             {nil, false},
		"short":             {good[:reportAt+reportSize-1], false},
		"long":              {append(bytes.Clone(good), make([]byte, maxQuote-len(good)+1)...), false},
		"version 2":         {changed(0), false},
		"version 259":       {changed(1), false},
		"other data":        {changed(dataAt), false},
		"other end of data": {changed(dataAt + 63), false},
	} {
		ev, err := Evidence(c.quote, wanted)
		if (err == nil) != c.ok || err == nil && (ev.Format != "sgx" || !bytes.Equal(ev.Raw, c.quote) || len(ev.Endorsements) != 0) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenEnclave(t *testing.T) {
	t.Parallel()
	q := unsigned(wanted)
	n := uint64(len(q))
	for name, c := range map[string]struct {
		report []byte
		data   attest.ReportData
		ok     bool
	}{
		"good":            {openEnclave(1, 2, n, q), wanted, true},
		"empty":           {nil, wanted, false},
		"header cut":      {openEnclave(1, 2, n, q)[:15], wanted, false},
		"header alone":    {openEnclave(1, 2, 0, nil), wanted, false},
		"bare quote":      {q, wanted, false},
		"other version":   {openEnclave(2, 2, n, q), wanted, false},
		"local report":    {openEnclave(1, 1, n, q), wanted, false},
		"size less":       {openEnclave(1, 2, n-1, q), wanted, false},
		"size more":       {openEnclave(1, 2, n+1, q), wanted, false},
		"size of 64 bits": {openEnclave(1, 2, n+1<<32, q), wanted, false},
		"other data":      {openEnclave(1, 2, n, q), attest.ReportData{1}, false},
	} {
		ev, err := OpenEnclave(c.report, c.data)
		if (err == nil) != c.ok || err == nil && !bytes.Equal(ev.Raw, q) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRecordedQuote shows that the layout is that of hardware.
func TestRecordedQuote(t *testing.T) {
	t.Parallel()
	raw := vectors.Read(t, "sgx/quote-v3.bin")
	data := attest.ReportData(raw[dataAt:])
	if data.IsZero() {
		t.Fatal("the recorded quote has no report data")
	}
	if _, err := Evidence(raw, data); err != nil {
		t.Error(err)
	}
}

// fakeSource is a library operating system.
type fakeSource struct {
	absent  error
	answer  func(attest.ReportData) ([]byte, error)
	started chan struct{}
	release chan struct{}
	calls   int
}

func (*fakeSource) name() string   { return "fake" }
func (f *fakeSource) probe() error { return f.absent }
func (f *fakeSource) quote(data attest.ReportData) ([]byte, error) {
	f.calls++
	if f.started != nil {
		f.started <- struct{}{}
		<-f.release
	}
	if f.answer != nil {
		return f.answer(data)
	}
	return unsigned(data), nil
}

func TestFirstOf(t *testing.T) {
	t.Parallel()
	here, second := &fakeSource{}, &fakeSource{}
	absent := &fakeSource{absent: errNoTEE}
	broken := &fakeSource{absent: fs.ErrPermission}
	for name, c := range map[string]struct {
		sources []source
		want    source
		code    attest.Code
	}{
		"first":          {[]source{here, second}, here, ""},
		"second":         {[]source{absent, second}, second, ""},
		"neither":        {[]source{absent, absent}, nil, attest.CodeNoTEE},
		"broken":         {[]source{broken, here}, nil, attest.CodeAttesterFailed},
		"absent, broken": {[]source{absent, broken, here}, nil, attest.CodeAttesterFailed},
		"another system": {nil, nil, attest.CodeNoTEE},
	} {
		got, err := firstOf(c.sources)
		if attest.CodeOf(err) != c.code || err == nil && got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestAttester(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		source fakeSource
		data   attest.ReportData
		code   attest.Code
		calls  int
	}{
		"works":   {fakeSource{}, wanted, "", 1},
		"no data": {fakeSource{}, attest.ReportData{}, attest.CodeNoExpectation, 0},
		"failure": {fakeSource{answer: func(attest.ReportData) ([]byte, error) { return nil, errors.New("EIO") }}, wanted, attest.CodeAttesterFailed, 1},
		"over other data": {fakeSource{answer: func(attest.ReportData) ([]byte, error) {
			return unsigned(attest.ReportData{9}), nil
		}}, wanted, attest.CodeAttesterFailed, 1},
	} {
		a := newAttester(&c.source)
		ev, err := a.Attest(t.Context(), c.data)
		if attest.CodeOf(err) != c.code || err == nil && !bytes.Equal(ev.Raw, unsigned(c.data)) || c.source.calls != c.calls || a.Source() != "fake" {
			t.Errorf("%s: %v, %d calls", name, err, c.source.calls)
		}
	}
}

// TestAttesterTakesTurns: the report data is of the whole enclave, so a second request must not come between.
func TestAttesterTakesTurns(t *testing.T) {
	t.Parallel()
	f := &fakeSource{started: make(chan struct{}), release: make(chan struct{})}
	a := newAttester(f)
	first := make(chan error)
	go func() {
		_, err := a.Attest(context.Background(), wanted)
		first <- err
	}()
	<-f.started
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error)
	go func() {
		_, err := a.Attest(ctx, wanted)
		second <- err
	}()
	cancel()
	if err := <-second; attest.CodeOf(err) != attest.CodeAttesterFailed || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if f.calls != 1 {
		t.Errorf("%d calls at once", f.calls)
	}
	close(f.release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	for range 20 {
		if _, err := a.Attest(ctx, wanted); !errors.Is(err, context.Canceled) {
			t.Fatal("cancelled before:", err)
		}
	}
	if f.calls != 1 {
		t.Errorf("%d calls", f.calls)
	}
}
