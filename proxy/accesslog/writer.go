package accesslog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Format of the lines.
type Format uint8

// The formats.
const (
	Text Format = iota // AppendText
	JSON               // AppendJSON
)

// ParseFormat reads "text" or "json". The error is an *attest.Error with CodeConfigValue.
func ParseFormat(s string) (Format, error) {
	switch s {
	case "text":
		return Text, nil
	case "json":
		return JSON, nil
	}
	if len(s) > 40 {
		s = s[:40]
	}
	return 0, &attest.Error{Code: attest.CodeConfigValue, Check: "access_log", Subject: "format", Got: strconv.Quote(s), Want: "text or json"}
}

// Options of a Writer. A zero field takes the default that its comment names.
type Options struct {
	Format   Format
	Buffer   int           // bytes of lines that may wait, 1 MiB; 64 KiB to 1 GiB
	Batch    int           // bytes of lines that are written at once without waiting for more, 64 KiB; at most half of Buffer
	Interval time.Duration // the longest time that a line waits, 1 s
	// Log is told when lines are lost or can't be written, at most once per Interval, and when they can be again.
	Log *slog.Logger
}

const leastBuffer, mostBuffer = 64 << 10, 1 << 30

func (o Options) withDefaults() Options {
	if o.Buffer == 0 {
		o.Buffer = 1 << 20
	}
	o.Buffer = min(max(o.Buffer, leastBuffer), mostBuffer)
	if o.Batch <= 0 {
		o.Batch = 64 << 10
	}
	o.Batch = min(o.Batch, o.Buffer/2)
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Stats is a snapshot of a Writer's counters.
type Stats struct {
	Written uint64 `json:"written"` // lines
	Dropped uint64 `json:"dropped"` // lines: there was no room, they could not be written before Close, or came after it
	Failed  uint64 `json:"failed"`  // attempts to write
	Bytes   uint64 `json:"bytes"`   // written
}

// ErrClosed is what Reopen answers after Close.
var ErrClosed = errors.New("accesslog: the log is closed")

// Writer writes Records. Any number of goroutines may call its methods. A nil Writer is a log that is off: it does nothing.
type Writer struct {
	opts    Options
	open    Opener
	scratch sync.Pool // of *[]byte

	// Two halves: what callers add to, and what the goroutine writes. The lock is never held while something is written.
	mu     sync.Mutex
	lines  []byte
	closed bool

	some    chan struct{} // there is a line
	full    chan struct{} // there is a batch
	reopens chan chan error
	closing chan struct{}
	done    chan struct{}
	once    sync.Once
	current atomic.Pointer[io.WriteCloser] // what is written to; replaced by the goroutine alone

	written, dropped, failed, size atomic.Uint64

	// Of the goroutine:
	rest     []byte // lines that were taken and are not written yet
	torn     bool   // of the first one a part is written
	half     []byte // the half that is not lines
	told     uint64 // losses that opts.Log was told of
	toldAt   time.Time
	troubled bool  // the last attempt failed
	err      error // of the last attempt
}

// New opens a log and starts the goroutine that writes it, until Close.
func New(open Opener, opts Options) (*Writer, error) {
	sink, err := open()
	if err != nil {
		return nil, err
	}
	w := &Writer{
		opts: opts.withDefaults(), open: open,
		some: make(chan struct{}, 1), full: make(chan struct{}, 1), reopens: make(chan chan error),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	w.current.Store(&sink)
	w.lines = make([]byte, 0, w.opts.Buffer/2)
	w.half = make([]byte, 0, w.opts.Buffer/2)
	w.scratch.New = func() any { b := make([]byte, 0, 2048); return &b }
	go w.run()
	return w, nil
}

// Log takes a line. It waits for nothing but the lock, which is held for as long as copying a line takes.
func (w *Writer) Log(r *Record) {
	if w != nil {
		w.log(r)
	}
}

func (w *Writer) log(r *Record) {
	// Formatted outside of the lock: that takes ten times as long as what is done inside of it.
	scratch := w.scratch.Get().(*[]byte)
	b := (*scratch)[:0]
	if w.opts.Format == JSON {
		b = AppendJSON(b, r)
	} else {
		b = AppendText(b, r)
	}
	w.add(b)
	if cap(b) <= 32<<10 {
		*scratch = b
		w.scratch.Put(scratch)
	}
}

func (w *Writer) add(b []byte) {
	w.mu.Lock()
	if w.closed || len(w.lines)+len(b) > cap(w.lines) {
		w.mu.Unlock()
		w.dropped.Add(1)
		return
	}
	before := len(w.lines)
	w.lines = append(w.lines, b...)
	after := len(w.lines)
	w.mu.Unlock()
	if before == 0 {
		signal(w.some)
	}
	if after >= w.opts.Batch {
		signal(w.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Reopen writes what there is, and opens the log anew: for a file that was renamed. On an error the log goes on as before.
func (w *Writer) Reopen(ctx context.Context) error {
	if w == nil {
		return nil
	}
	answer := make(chan error, 1)
	select {
	case w.reopens <- answer:
	case <-w.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close writes what there is and closes the log; it answers the error of that. When ctx ends before, what is left is dropped,
// and the error is ctx's.
func (w *Writer) Close(ctx context.Context) error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.once.Do(func() { close(w.closing) })
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		select {
		case <-w.done:
			return w.err
		default:
		}
		_ = (*w.current.Load()).Close() // ends a Write that hangs, where the system lets it
		return ctx.Err()
	}
}

// Stats is what was counted so far.
func (w *Writer) Stats() Stats {
	if w == nil {
		return Stats{}
	}
	return Stats{Written: w.written.Load(), Dropped: w.dropped.Load(), Failed: w.failed.Load(), Bytes: w.size.Load()}
}

func (w *Writer) run() {
	defer close(w.done)
	timer := time.NewTimer(w.opts.Interval)
	defer timer.Stop()
	for {
		if !w.troubled {
			select {
			case <-w.some:
			case answer := <-w.reopens:
				answer <- w.reopen()
				continue
			case <-w.closing:
				w.finish()
				return
			}
		}
		timer.Reset(w.opts.Interval)
		full := w.full
		if w.troubled {
			full = nil // a disk that is full is not tried again for every line
		}
		select {
		case <-timer.C:
			w.flush()
		case <-full:
			w.flush()
		case answer := <-w.reopens:
			answer <- w.reopen()
		case <-w.closing:
			w.finish()
			return
		}
	}
}

// flush writes what there is.
func (w *Writer) flush() {
	w.write()
	if len(w.rest) == 0 {
		w.mu.Lock()
		w.lines, w.half = w.half[:0], w.lines
		w.mu.Unlock()
		w.rest = w.half
		w.write()
	}
	w.tell()
}

// write writes the rest. What can't be written stays: a full disk may have room again before the buffer is full.
func (w *Writer) write() {
	if len(w.rest) == 0 {
		return
	}
	n, err := (*w.current.Load()).Write(w.rest)
	n = min(max(n, 0), len(w.rest))
	if err == nil && n < len(w.rest) {
		err = io.ErrShortWrite
	}
	w.size.Add(uint64(n))
	w.written.Add(uint64(bytes.Count(w.rest[:n], newline)))
	if n > 0 {
		w.torn = w.rest[n-1] != '\n'
	}
	w.rest = w.rest[n:]
	w.err = err
	if err != nil {
		w.failed.Add(1)
	}
}

var newline = []byte("\n")

// tell says what an operator has to know.
func (w *Writer) tell() {
	dropped, now := w.dropped.Load(), time.Now()
	switch failed := w.err != nil; {
	case failed && !w.troubled:
		w.opts.Log.Error("access log can't be written", "error", w.err.Error())
	case !failed && w.troubled:
		w.opts.Log.Info("access log is written again", "dropped", dropped)
	case dropped != w.told && now.Sub(w.toldAt) >= w.opts.Interval:
		w.opts.Log.Warn("access log lost lines", "dropped", dropped)
	default:
		return
	}
	w.troubled, w.told, w.toldAt = w.err != nil, dropped, now
}

// reopen replaces what is written to.
func (w *Writer) reopen() error {
	w.flush()
	sink, err := w.open()
	if err != nil {
		return err
	}
	if w.torn {
		// The end of a line whose beginning is elsewhere would be a line that nobody wrote.
		w.rest = w.rest[bytes.IndexByte(w.rest, '\n')+1:]
		w.torn = false
		w.dropped.Add(1)
	}
	old := w.current.Swap(&sink)
	_ = (*old).Close()
	w.flush() // what the old one did not take
	return nil
}

// finish writes what there is for the last time.
func (w *Writer) finish() {
	w.flush()
	w.mu.Lock()
	left := w.lines
	w.mu.Unlock()
	if n := bytes.Count(w.rest, newline) + bytes.Count(left, newline); n > 0 {
		w.opts.Log.Warn("access log lost lines", "dropped", w.dropped.Add(uint64(n)))
	}
	if err := (*w.current.Load()).Close(); w.err == nil {
		w.err = err
	}
}
