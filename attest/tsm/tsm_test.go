package tsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// fakeFiles behave like the kernel's configfs-tsm. What they answer is "report over " and the request.
type fakeFiles struct {
	mu          sync.Mutex
	mkdir       error
	rmdir       error
	provider    string
	aux         []byte
	noAux       bool
	auxError    error
	floor       string // of the privilege level; empty: none
	disturb     int    // how many requests another process interferes with
	busy        int    // how often outblob answers EBUSY
	outblob     error
	inblob      error
	first       error // of reading the generation before the request
	generation  error // and after
	privlevel   error
	writes      map[string]int
	entries     map[string][]byte // directory to inblob
	privilege   string
	collections int
}

func newFake() *fakeFiles {
	return &fakeFiles{provider: "sev_guest\n", writes: map[string]int{}, entries: map[string][]byte{}}
}

func (f *fakeFiles) Mkdir(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mkdir != nil {
		return f.mkdir
	}
	if _, ok := f.entries[path]; ok {
		return fs.ErrExist
	}
	f.entries[path] = nil
	f.writes[path] = 7 // the counter need not begin at zero
	return nil
}

func (f *fakeFiles) Rmdir(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.entries, path)
	return f.rmdir
}

func (f *fakeFiles) Write(path string, content []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir := filepath.Dir(path)
	switch filepath.Base(path) {
	case "inblob":
		if len(content) != 64 {
			return fs.ErrInvalid
		}
		if f.inblob != nil {
			return f.inblob
		}
		f.entries[dir] = bytes.Clone(content)
	case "privlevel":
		if f.privlevel != nil {
			return f.privlevel
		}
		f.privilege = string(content)
	default:
		return fs.ErrPermission
	}
	f.writes[dir]++
	return nil
}

func (f *fakeFiles) Read(path string, limit int) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir := filepath.Dir(path)
	if _, ok := f.entries[dir]; !ok {
		return nil, fs.ErrNotExist
	}
	switch filepath.Base(path) {
	case "provider":
		if f.provider == "" {
			return nil, syscall.ENXIO
		}
		return []byte(f.provider), nil
	case "generation":
		if f.first != nil && f.writes[dir] == 7 {
			return nil, f.first
		}
		if f.generation != nil && f.writes[dir] != 7 {
			return nil, f.generation
		}
		return fmt.Appendf(nil, "%d\n", f.writes[dir]), nil
	case "privlevel_floor":
		if f.floor == "" {
			return nil, fs.ErrNotExist
		}
		return []byte(f.floor), nil
	case "auxblob":
		if f.noAux {
			return nil, fs.ErrNotExist
		}
		return f.aux, f.auxError
	case "outblob":
		f.collections++
		if f.outblob != nil {
			return nil, f.outblob
		}
		if f.busy > 0 {
			f.busy--
			return nil, syscall.EBUSY
		}
		if f.disturb > 0 {
			f.disturb--
			f.writes[dir]++
		}
		return append([]byte("report over "), f.entries[dir]...), nil
	}
	return nil, fs.ErrNotExist
}

func over(f fileSystem) *Configfs {
	c := NewConfigfs(ProviderSNP, 100, 100)
	c.dir, c.files = "/tsm", f
	c.pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return c
}

func TestConfigfs(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change      func(*fakeFiles)
		want        error
		collections int
	}{
		"works":                     {func(*fakeFiles) {}, nil, 1},
		"something beside it":       {func(f *fakeFiles) { f.aux = []byte("table") }, nil, 1},
		"nothing beside it":         {func(f *fakeFiles) { f.noAux = true }, nil, 1},
		"what is beside it fails":   {func(f *fakeFiles) { f.auxError = broken }, broken, 1},
		"disturbed twice":           {func(f *fakeFiles) { f.disturb = 2 }, nil, 3},
		"disturbed all the time":    {func(f *fakeFiles) { f.disturb = 9 }, errDisturbed, 3},
		"busy for a while":          {func(f *fakeFiles) { f.busy = maxBusy - 1 }, nil, maxBusy},
		"busy all the time":         {func(f *fakeFiles) { f.busy = 99 }, syscall.EBUSY, maxBusy},
		"firmware fails":            {func(f *fakeFiles) { f.outblob = syscall.EIO }, syscall.EIO, 1},
		"request refused":           {func(f *fakeFiles) { f.inblob = broken }, broken, 0},
		"counter fails at first":    {func(f *fakeFiles) { f.first = broken }, broken, 0},
		"level refused":             {func(f *fakeFiles) { f.floor, f.privlevel = "1\n", broken }, broken, 0},
		"counter cannot be read":    {func(f *fakeFiles) { f.generation = broken }, broken, 1},
		"level is no number":        {func(f *fakeFiles) { f.floor = "x" }, strconv.ErrSyntax, 0},
		"another TEE":               {func(f *fakeFiles) { f.provider = "tdx_guest\n" }, ErrAbsent, 0},
		"the driver left":           {func(f *fakeFiles) { f.provider = "" }, syscall.ENXIO, 0},
		"no TEE":                    {func(f *fakeFiles) { f.mkdir = syscall.ENXIO }, ErrAbsent, 0},
		"no configfs":               {func(f *fakeFiles) { f.mkdir = fs.ErrNotExist }, ErrAbsent, 0},
		"not permitted":             {func(f *fakeFiles) { f.mkdir = fs.ErrPermission }, fs.ErrPermission, 0},
		"cannot be removed":         {func(f *fakeFiles) { f.rmdir = broken }, broken, 1},
		"privilege levels":          {func(f *fakeFiles) { f.floor = "0\n" }, nil, 1},
		"below a paravisor":         {func(f *fakeFiles) { f.floor = "2\n" }, nil, 1},
		"disturbed, with privilege": {func(f *fakeFiles) { f.floor, f.disturb = "2\n", 1 }, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFake()
			c.change(fake)
			data := attest.ReportData{1, 2, 3}
			r, err := over(fake).Collect(t.Context(), data)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatal(err)
			}
			if err == nil && (string(r.Out) != "report over "+string(data[:]) || !bytes.Equal(r.Aux, fake.aux)) || err != nil && (r.Out != nil || r.Aux != nil) {
				t.Errorf("%q, %q", r.Out, r.Aux)
			}
			if fake.collections != c.collections {
				t.Errorf("%d collections, want %d", fake.collections, c.collections)
			}
			if len(fake.entries) != 0 {
				t.Errorf("left behind: %v", fake.entries)
			}
			if want := map[string]string{"2\n": "2"}[fake.floor]; fake.privilege != want {
				t.Errorf("privilege level %q, want %q", fake.privilege, want)
			}
		})
	}
}

// TestBusyStops: a caller who gives up does not wait for a busy platform.
func TestBusyStops(t *testing.T) {
	t.Parallel()
	fake := newFake()
	fake.busy = 99
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := over(fake)
	c.pause = pause
	if _, err := c.Collect(ctx, attest.ReportData{1}); !errors.Is(err, context.Canceled) || fake.collections != 1 {
		t.Errorf("%v after %d", err, fake.collections)
	}
	if err := pause(t.Context(), 1); err != nil {
		t.Error(err)
	}
}

// TestFiles runs over a directory: the attribute files are there before, as configfs makes them.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{"provider": "sev_guest\n", "inblob": "", "outblob": "report", "generation": "1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := NewConfigfs(ProviderSNP, 6, 0)
	// The file system does not count generations: the request is written and answered, but looks disturbed.
	if _, err := c.once(t.Context(), dir, attest.ReportData{7}); !errors.Is(err, errDisturbed) {
		t.Fatal(err)
	}
	if in, err := os.ReadFile(filepath.Join(dir, "inblob")); err != nil || len(in) != 64 || in[0] != 7 {
		t.Errorf("inblob %x, %v", in, err)
	}
	if raw, err := ReadFile(filepath.Join(dir, "outblob"), 6); err != nil || string(raw) != "report" {
		t.Errorf("%q, %v", raw, err)
	}
	if raw, err := ReadFile(filepath.Join(dir, "outblob"), 5); err == nil || raw != nil {
		t.Error("the bound is not kept")
	}
	if _, err := ReadFile(dir, 6); err == nil {
		t.Error("a directory is no file")
	}
	if err := (osFiles{}).Write(filepath.Join(dir, "absent"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a write creates the attribute: %v", err)
	}
	c.dir = dir
	if err := c.entry(func(d string) error { _, err := os.Stat(d); return err }); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "jurat-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// source answers as it is told.
type source struct {
	name    string
	probe   error
	collect func(ctx context.Context) (Report, error)
}

func (s source) Name() string { return s.name }
func (s source) Probe() error { return s.probe }
func (s source) Collect(ctx context.Context, _ attest.ReportData) (Report, error) {
	return s.collect(ctx)
}

func TestFirst(t *testing.T) {
	t.Parallel()
	one, two := source{name: "one"}, source{name: "two"}
	absent := source{name: "absent", probe: fmt.Errorf("%w: really", ErrAbsent)}
	forbidden := source{name: "forbidden", probe: fs.ErrPermission}
	for name, c := range map[string]struct {
		sources []Source
		want    string
		code    attest.Code
	}{
		"first":         {[]Source{one, two}, "one", ""},
		"second":        {[]Source{absent, two}, "two", ""},
		"none":          {[]Source{absent, absent}, "", attest.CodeNoTEE},
		"not permitted": {[]Source{absent, forbidden, one}, "", attest.CodeAttesterFailed},
		"no source":     {nil, "", attest.CodeNoTEE},
	} {
		got, err := First("a guest", c.sources...)
		if attest.CodeOf(err) != c.code || err == nil && got.Name() != c.want || err != nil && got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	here := over(newFake())
	if got, err := First("", here); err != nil || got.Name() != SourceName {
		t.Error(got, err)
	}
}

func TestAttester(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	data := attest.ReportData{9}
	decode := func(r Report, d attest.ReportData) (*attest.Evidence, error) {
		if d != data {
			return nil, broken
		}
		return &attest.Evidence{Format: "test", Raw: r.Out}, nil
	}
	a := NewAttester(over(newFake()), decode)
	ev, err := a.Attest(t.Context(), data)
	if err != nil || string(ev.Raw) != "report over "+string(data[:]) || a.Source() != SourceName {
		t.Fatal(ev, err)
	}
	if _, err := a.Attest(t.Context(), attest.ReportData{}); attest.CodeOf(err) != attest.CodeNoExpectation {
		t.Error(err)
	}
	if ev, err := a.Attest(t.Context(), attest.ReportData{1}); attest.CodeOf(err) != attest.CodeAttesterFailed || !errors.Is(err, broken) || ev != nil {
		t.Error(err)
	}
	failing := NewAttester(source{collect: func(context.Context) (Report, error) { return Report{}, broken }}, decode)
	if _, err := failing.Attest(t.Context(), data); attest.CodeOf(err) != attest.CodeAttesterFailed || !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestAttesterGivesUp: a platform that does not answer holds nobody longer than they want to wait, and works on no second
// request meanwhile.
func TestAttesterGivesUp(t *testing.T) {
	t.Parallel()
	answer, asked := make(chan struct{}), make(chan struct{}, 2)
	slow := source{collect: func(context.Context) (Report, error) {
		asked <- struct{}{}
		<-answer
		return Report{Out: []byte("late")}, nil
	}}
	a := NewAttester(slow, func(r Report, _ attest.ReportData) (*attest.Evidence, error) {
		return &attest.Evidence{Raw: r.Out}, nil
	})
	for range 2 { // waiting for the answer, then for the turn
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { _, err := a.Attest(ctx, attest.ReportData{1}); done <- err }()
		if len(asked) == 0 {
			asked <- <-asked
		}
		cancel()
		if err := <-done; attest.CodeOf(err) != attest.CodeAttesterFailed || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	close(answer)
	if ev, err := a.Attest(t.Context(), attest.ReportData{1}); err != nil || string(ev.Raw) != "late" {
		t.Error(err)
	}
	if len(asked) != 2 {
		t.Errorf("asked %d times", len(asked))
	}
}
