package accesslog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/accesslog"
)

// sink is a disk that can be full and a pipe that can be slow.
type sink struct {
	mu      sync.Mutex
	got     bytes.Buffer
	writes  int
	room    int // bytes that it still takes; negative: without end
	short   bool
	closed  bool
	hang    chan struct{} // a write waits until it is closed
	closing error
}

func newSink() *sink { return &sink{room: -1} }

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if hang := s.hang; hang != nil {
		s.mu.Unlock()
		<-hang
		s.mu.Lock()
	}
	if s.closed {
		return 0, os.ErrClosed
	}
	if s.room >= 0 && len(p) > s.room {
		n := s.room
		s.got.Write(p[:n])
		s.room = 0
		if s.short {
			return n, nil
		}
		return n, syscall.ENOSPC
	}
	if s.room >= 0 {
		s.room -= len(p)
	}
	return s.got.Write(p)
}

func (s *sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hang != nil && !s.closed {
		close(s.hang)
		s.hang = nil
	}
	s.closed = true
	return s.closing
}

func (s *sink) open() (io.WriteCloser, error) { return s, nil }

func (s *sink) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String()
}

func (s *sink) tries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

func (s *sink) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func newWriter(t testing.TB, open accesslog.Opener, opts accesslog.Options) *accesslog.Writer {
	t.Helper()
	w, err := accesslog.New(open, opts)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func closeWriter(t testing.TB, w *accesslog.Writer) {
	t.Helper()
	if err := w.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func lines(n int) string {
	var b []byte
	for i := range n {
		b = accesslog.AppendText(b, &accesslog.Record{Start: start, Tries: i})
	}
	return string(b)
}

func write(w *accesslog.Writer, from, to int) {
	for i := from; i < to; i++ {
		w.Log(&accesslog.Record{Start: start, Tries: i})
	}
}

func line(from int) int { return len(lines(from+1)) - len(lines(from)) }

// In a bubble of synctest time passes when nothing else can go on.
func TestFlushByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		w := newWriter(t, s.open, accesslog.Options{})
		defer closeWriter(t, w)
		for round := range 3 {
			time.Sleep(17 * time.Second)
			write(w, 3*round, 3*round+3)
			time.Sleep(time.Second - time.Nanosecond)
			synctest.Wait()
			if got := s.text(); got != lines(3*round) {
				t.Fatalf("before a second is over: %s", got)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if got := s.text(); got != lines(3*round+3) || s.tries() != round+1 {
				t.Fatalf("after a second: %d %s", s.tries(), got)
			}
		}
		if got := w.Stats(); got != (accesslog.Stats{Written: 9, Bytes: uint64(len(lines(9)))}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		w := newWriter(t, s.open, accesslog.Options{Interval: 10 * time.Second})
		defer closeWriter(t, w)
		write(w, 0, 1)
		time.Sleep(10*time.Second - 1)
		synctest.Wait()
		if s.text() != "" {
			t.Error("written early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if s.text() != lines(1) {
			t.Error("not written")
		}
	})
}

// Without a word about it, 64 KiB don't wait.
func TestFlushByDefaultSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		w := newWriter(t, s.open, accesslog.Options{})
		defer closeWriter(t, w)
		n := 1
		for len(lines(n)) < 64<<10 { // the last one fills the batch, and none is left behind it
			n++
		}
		write(w, 0, n)
		synctest.Wait()
		if s.text() != lines(n) {
			t.Error("not written")
		}
	})
}

func TestFlushBySize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		w := newWriter(t, s.open, accesslog.Options{Batch: len(lines(5))})
		defer closeWriter(t, w)
		write(w, 0, 4)
		synctest.Wait()
		if s.text() != "" {
			t.Error("written before the batch is full")
		}
		for n := 5; n <= 40; n += 5 {
			write(w, n-1, n)
			synctest.Wait()
			if got := s.text(); got != lines(n) {
				t.Fatalf("%d: got %s", n, got)
			}
			write(w, n, n+4)
			synctest.Wait()
		}
	})
}

func TestCloseFlushes(t *testing.T) {
	for _, format := range []accesslog.Format{accesslog.Text, accesslog.JSON} {
		s := newSink()
		w := newWriter(t, s.open, accesslog.Options{Format: format})
		w.Log(full())
		closeWriter(t, w)
		closeWriter(t, w)
		want := accesslog.AppendText(nil, full())
		if format == accesslog.JSON {
			want = accesslog.AppendJSON(nil, full())
		}
		if s.text() != string(want) || !s.closed {
			t.Errorf("got %s", s.text())
		}
		w.Log(full())
		if err := w.Reopen(context.Background()); !errors.Is(err, accesslog.ErrClosed) {
			t.Error(err)
		}
		if got := w.Stats(); got.Written != 1 || got.Dropped != 1 {
			t.Errorf("%+v", got)
		}
	}
	s := newSink()
	w := newWriter(t, s.open, accesslog.Options{})
	closeWriter(t, w)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for range 20 {
		if err := w.Close(over); err != nil {
			t.Error(err)
		}
	}
	s = newSink()
	s.closing = errors.New("quota")
	w = newWriter(t, s.open, accesslog.Options{})
	if err := w.Close(context.Background()); !errors.Is(err, s.closing) {
		t.Error(err)
	}
}

func TestOff(t *testing.T) {
	var w *accesslog.Writer
	w.Log(full())
	if err := errors.Join(w.Reopen(context.Background()), w.Close(context.Background())); err != nil || w.Stats() != (accesslog.Stats{}) {
		t.Error(err)
	}
}

// A pipe that nobody reads keeps nobody waiting: what there is room for is kept, the rest is counted.
func TestSlowPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		s.hang = make(chan struct{})
		var told bytes.Buffer
		w := newWriter(t, s.open, accesslog.Options{Buffer: 64 << 10, Log: slog.New(slog.NewJSONHandler(&told, nil))})
		defer closeWriter(t, w)
		write(w, 0, 1)
		time.Sleep(time.Second)
		synctest.Wait() // the first line is on its way
		const n = 1000
		before := time.Now()
		write(w, 1, n)
		if time.Since(before) != 0 {
			t.Error("Log waited")
		}
		dropped := w.Stats().Dropped
		if kept := lines(n - int(dropped)); dropped == 0 || len(kept) > 32<<10+line(0) || len(kept) < 31<<10 {
			t.Fatalf("%d dropped", dropped)
		}
		s.set(func() { close(s.hang); s.hang = nil })
		time.Sleep(time.Second)
		synctest.Wait()
		if s.text() != lines(n-int(dropped)) {
			t.Error("other lines than the first ones are kept")
		}
		write(w, n, n+1)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.Stats(); got.Written+got.Dropped != n+1 || got.Dropped != dropped {
			t.Errorf("%+v", got)
		}
		if !strings.Contains(told.String(), `"WARN","msg":"access log lost lines","dropped":`+fmt.Sprint(dropped)) || strings.Count(told.String(), "\n") != 1 {
			t.Errorf("told: %s", &told)
		}
	})
}

// While lines are lost all the time, that is told once in an interval.
func TestLossesAreToldSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told bytes.Buffer
		s := newSink()
		w := newWriter(t, s.open, accesslog.Options{Buffer: 64 << 10, Batch: 4096, Log: slog.New(slog.NewJSONHandler(&told, nil))})
		defer closeWriter(t, w)
		for range 20 {
			hang := make(chan struct{})
			s.set(func() { s.hang = hang })
			write(w, 0, 400) // more than there is room for
			s.set(func() { s.hang = nil })
			close(hang)
			time.Sleep(250 * time.Millisecond)
		}
		synctest.Wait()
		if n := strings.Count(told.String(), "\n"); w.Stats().Dropped == 0 || n == 0 || n > 6 {
			t.Errorf("%+v told %d times", w.Stats(), n)
		}
	})
}

// Lines survive a disk that is full for a while, whole and in order, wherever the write broke off.
func TestDiskFull(t *testing.T) {
	for _, short := range []bool{false, true} {
		for room := range 2*line(0) + 2 {
			synctest.Test(t, func(t *testing.T) {
				s := newSink()
				s.room, s.short = room, short
				var told bytes.Buffer
				w := newWriter(t, s.open, accesslog.Options{Batch: 1, Log: slog.New(slog.NewJSONHandler(&told, nil))})
				write(w, 0, 5)
				synctest.Wait()
				tries := s.tries()
				write(w, 5, 9) // each is a batch: none of them is a reason to try again
				synctest.Wait()
				if n := s.tries(); n != tries {
					t.Errorf("tried %d times, and at once %d", tries, n)
				}
				time.Sleep(time.Second + time.Millisecond)
				if n := s.tries(); n != tries+1 {
					t.Errorf("tried %d times, then %d", tries, n)
				}
				if got := w.Stats(); got.Failed != 2 || got.Written != uint64(room/line(0)) || got.Bytes != uint64(room) {
					t.Errorf("%+v", got)
				}
				s.set(func() { s.room = -1 })
				time.Sleep(time.Second)
				synctest.Wait()
				if s.text() != lines(9) {
					t.Errorf("got %s", s.text())
				}
				write(w, 9, 10)
				closeWriter(t, w)
				if got := w.Stats(); s.text() != lines(10) || got.Written != 10 || got.Dropped != 0 {
					t.Errorf("%+v %s", got, s.text())
				}
				if n := strings.Count(told.String(), "\n"); n != 2 || !strings.Contains(told.String(), "can't be written") || !strings.Contains(told.String(), "again") {
					t.Errorf("told: %s", &told)
				}
			})
		}
	}
}

// What can't be written before Close is counted.
func TestDiskFullAtClose(t *testing.T) {
	for _, room := range []int{0, 10, line(0) - 1, line(0), line(0) + 1} {
		synctest.Test(t, func(t *testing.T) {
			s := newSink()
			s.room = room
			var told bytes.Buffer
			w := newWriter(t, s.open, accesslog.Options{Log: slog.New(slog.NewJSONHandler(&told, nil))})
			write(w, 0, 5)
			time.Sleep(time.Second)
			synctest.Wait()
			write(w, 5, 7)
			if err := w.Close(context.Background()); !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
			if got := w.Stats(); got.Written != uint64(room/line(0)) || got.Written+got.Dropped != 7 || !s.closed {
				t.Errorf("%d: %+v", room, got)
			}
			if want := fmt.Sprintf(`"msg":"access log lost lines","dropped":%d}`, 7-room/line(0)); !strings.Contains(told.String(), want) {
				t.Errorf("told: %s", &told)
			}
		})
	}
}

// A line that was torn in one file does not go on in another.
func TestReopenAfterTear(t *testing.T) {
	for _, room := range []int{0, 10, line(0) - 1, line(0), line(0) + 1} {
		synctest.Test(t, func(t *testing.T) {
			first, second := newSink(), newSink()
			sinks := []*sink{first, second}
			first.room = room
			w := newWriter(t, func() (io.WriteCloser, error) {
				s := sinks[0]
				sinks = sinks[1:]
				return s, nil
			}, accesslog.Options{})
			write(w, 0, 3)
			time.Sleep(time.Second)
			synctest.Wait()
			write(w, 3, 5)
			if err := w.Reopen(context.Background()); err != nil {
				t.Fatal(err)
			}
			whole, torn := room/line(0), 0
			if room%line(0) != 0 {
				torn = 1
			}
			if want := lines(5)[len(lines(whole+torn)):]; second.text() != want || !first.closed {
				t.Errorf("%d: got %s", room, second.text())
			}
			closeWriter(t, w)
			if got := w.Stats(); got.Written != uint64(5-torn) || got.Dropped != uint64(torn) {
				t.Errorf("%d: %+v", room, got)
			}
		})
	}
}

// A log that can't be opened anew goes on in the old file.
func TestReopenFails(t *testing.T) {
	s, fail := newSink(), error(nil)
	w := newWriter(t, func() (io.WriteCloser, error) { return s, fail }, accesslog.Options{})
	write(w, 0, 1)
	fail = errors.New("no such directory")
	if err := w.Reopen(context.Background()); !errors.Is(err, fail) {
		t.Error(err)
	}
	if s.text() != lines(1) {
		t.Error("not flushed")
	}
	write(w, 1, 2)
	closeWriter(t, w)
	if s.text() != lines(2) {
		t.Errorf("got %s", s.text())
	}
	if w, err := accesslog.New(func() (io.WriteCloser, error) { return nil, fail }, accesslog.Options{}); w != nil || !errors.Is(err, fail) {
		t.Error(err)
	}
}

// Neither Reopen nor Close waits longer than its context for a pipe that nobody reads, and Close breaks the write off.
func TestHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		s.hang = make(chan struct{})
		w := newWriter(t, s.open, accesslog.Options{})
		write(w, 0, 3)
		time.Sleep(time.Second)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, f := range []func(context.Context) error{w.Reopen, w.Close} {
			if err := f(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		synctest.Wait() // the goroutine has gone, or the bubble would not end
		if got := w.Stats(); got.Dropped != 3 {
			t.Errorf("%+v", got)
		}
		if err := w.Close(context.Background()); err == nil {
			t.Error("no error of what was lost")
		}
	})
}

// An answer that comes too late is nobody's.
func TestReopenHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, opening := newSink(), make(chan struct{})
		close(opening)
		w := newWriter(t, func() (io.WriteCloser, error) { <-opening; return s, nil }, accesslog.Options{})
		opening = make(chan struct{})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := w.Reopen(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		close(opening)
		_ = w.Close(context.Background())
	})
}

// Many write while the log is reopened and the disk is full now and then: every line is whole, and written once or counted.
func TestConcurrent(t *testing.T) {
	const loops, each = 8, 500
	s := newSink()
	w := newWriter(t, func() (io.WriteCloser, error) {
		return struct {
			io.Writer
			io.Closer
		}{s, io.NopCloser(nil)}, nil
	}, accesslog.Options{Buffer: 64 << 10, Batch: 8 << 10, Interval: time.Millisecond})
	var all sync.WaitGroup
	for i := range loops {
		all.Go(func() { write(w, i*each, i*each+each) })
	}
	all.Go(func() {
		for i := range 50 {
			s.set(func() {
				if s.room = -1; i%2 == 0 {
					s.room = 10_000
				}
			})
			if err := w.Reopen(context.Background()); err != nil {
				t.Error(err)
			}
			w.Stats()
		}
	})
	all.Wait()
	s.set(func() { s.room = -1 })
	closeWriter(t, w)
	got := w.Stats()
	if got.Written+got.Dropped != loops*each {
		t.Errorf("%+v", got)
	}
	known := map[string]bool{}
	for l := range strings.SplitAfterSeq(lines(loops*each), "\n") {
		known[l] = true
	}
	whole := 0
	for l := range strings.SplitAfterSeq(s.text(), "\n") {
		if l == "" {
			continue
		}
		if known[l] {
			whole++
			delete(known, l)
		}
	}
	// What was torn by Reopen stays torn in the old file, which here is the same one: it may cling to a whole line.
	if torn := int(got.Written) - whole; torn < 0 || torn > 50 {
		t.Errorf("%d of %d lines are whole", whole, got.Written)
	}
}

func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(name, []byte("earlier\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, accesslog.File(name), accesslog.Options{})
	write(w, 0, 1)
	old := name + ".1"
	if err := os.Rename(name, old); err != nil { // as logrotate does
		t.Fatal(err)
	}
	write(w, 1, 2)
	if err := w.Reopen(context.Background()); err != nil {
		t.Fatal(err)
	}
	write(w, 2, 3)
	closeWriter(t, w)
	for file, want := range map[string]string{old: "earlier\n" + lines(2), name: lines(3)[len(lines(2)):]} {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s: %v %s", file, err, got)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Error(err, info.Mode())
	}
	var e *attest.Error
	nowhere := filepath.Join(t.TempDir(), "no", "dir")
	if _, err := accesslog.New(accesslog.File(nowhere), accesslog.Options{}); !errors.As(err, &e) || e.Code != attest.CodeConfigValue || strings.Count(err.Error(), nowhere) != 1 {
		t.Error(err)
	}
}

// A real pipe: opening one that nobody reads fails at once; one that is not emptied is left when the context ends.
func TestNamedPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Skip(err)
	}
	if _, err := accesslog.File(name)(); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
	reader, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	w := newWriter(t, accesslog.File(name), accesslog.Options{Batch: 1})
	const n = 3000 // a megabyte, and more than a pipe holds
	write(w, 0, n)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := w.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := w.Close(context.Background()); err == nil {
		t.Error("no error of what was lost")
	}
	got := w.Stats()
	if got.Written+got.Dropped != n || got.Written == 0 || got.Dropped == 0 {
		t.Errorf("%+v", got)
	}
	b := make([]byte, got.Bytes)
	if _, err := io.ReadFull(reader, b); err != nil || !strings.HasPrefix(lines(n), string(b)) {
		t.Error(err)
	}
}

func TestFullDevice(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	w := newWriter(t, accesslog.File("/dev/full"), accesslog.Options{})
	write(w, 0, 3)
	if err := w.Close(context.Background()); !errors.Is(err, syscall.ENOSPC) || w.Stats().Dropped != 3 {
		t.Errorf("%v %+v", err, w.Stats())
	}
}

func TestStream(t *testing.T) {
	var b bytes.Buffer
	w := newWriter(t, accesslog.Stream(&b), accesslog.Options{})
	write(w, 0, 1)
	if err := w.Reopen(context.Background()); err != nil {
		t.Error(err)
	}
	write(w, 1, 2)
	closeWriter(t, w)
	if b.String() != lines(2) {
		t.Errorf("got %s", &b)
	}
}

func TestParseFormat(t *testing.T) {
	for s, want := range map[string]accesslog.Format{"text": accesslog.Text, "json": accesslog.JSON} {
		if got, err := accesslog.ParseFormat(s); got != want || err != nil {
			t.Errorf("%s: %v %v", s, got, err)
		}
	}
	for _, s := range []string{"", "JSON", "xml", strings.Repeat("x", 1000), "\n"} {
		_, err := accesslog.ParseFormat(s)
		if attest.CodeOf(err) != attest.CodeConfigValue || len(err.Error()) > 200 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// Lines of one goroutine stay in order.
func TestOrder(t *testing.T) {
	s := newSink()
	w := newWriter(t, s.open, accesslog.Options{Batch: 1})
	write(w, 0, 2000)
	closeWriter(t, w)
	if got := strings.SplitAfter(s.text(), "\n"); !slices.Equal(got, strings.SplitAfter(lines(2000), "\n")) {
		t.Error(len(got))
	}
}
