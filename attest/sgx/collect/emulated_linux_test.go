package collect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/test/trap"
)

// directory emulates Gramine's files. "quote" is a pipe: whoever opens it gets a quote over what user_report_data holds
// at that moment, as with Gramine.
func directory(t *testing.T, dir, kind string, quote func(attest.ReportData) []byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"attestation_type": kind, "user_report_data": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pipe := filepath.Join(dir, "quote")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	t.Cleanup(func() {
		done.Store(true)
		if r, err := os.OpenFile(pipe, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			_ = r.Close()
		}
	})
	go func() {
		for {
			w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for a reader
			if err != nil || done.Load() {
				return
			}
			// The next reader gets a pipe of its own, or it would see the end of this one.
			next := pipe + ".next"
			if unix.Mkfifo(next, 0o600) != nil || os.Rename(next, pipe) != nil {
				return
			}
			if in, err := os.ReadFile(filepath.Join(dir, "user_report_data")); err == nil && len(in) == 64 {
				_, _ = w.Write(quote(attest.ReportData(in)))
			}
			_ = w.Close()
		}
	}()
}

func TestGramine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind  string
		quote func(attest.ReportData) []byte
		probe error // nil, errNoTEE, or any other
		code  attest.Code
	}{
		"works":           {"dcap", unsigned, nil, ""},
		"no attestation":  {"none", unsigned, fs.ErrInvalid, ""},
		"epid":            {"epid", unsigned, fs.ErrInvalid, ""},
		"empty type":      {"", unsigned, fs.ErrInvalid, ""},
		"longer type":     {"dcap2", unsigned, fs.ErrInvalid, ""},
		"endless type":    {strings.Repeat("dcap", 5), unsigned, fs.ErrInvalid, ""},
		"no quote":        {"dcap", func(attest.ReportData) []byte { return nil }, nil, attest.CodeAttesterFailed},
		"endless quote":   {"dcap", func(d attest.ReportData) []byte { return append(unsigned(d), make([]byte, maxQuote)...) }, nil, attest.CodeAttesterFailed},
		"over other data": {"dcap", func(attest.ReportData) []byte { return unsigned(attest.ReportData{5}) }, nil, attest.CodeAttesterFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "attestation")
			directory(t, dir, c.kind, c.quote)
			g := gramine{dir}
			if err := g.probe(); (err == nil) != (c.probe == nil) || errors.Is(err, errNoTEE) {
				t.Fatal(err)
			}
			if c.probe != nil {
				return
			}
			a := newAttester(g)
			for i := range byte(3) {
				data := attest.ReportData{i + 1}
				ev, err := a.Attest(t.Context(), data)
				if attest.CodeOf(err) != c.code || err == nil && !bytes.Equal(ev.Raw, unsigned(data)) {
					t.Error(err)
				}
			}
		})
	}
}

func TestGramineAbsent(t *testing.T) {
	t.Parallel()
	g := gramine{filepath.Join(t.TempDir(), "attestation")}
	if err := g.probe(); !errors.Is(err, errNoTEE) {
		t.Error(err)
	}
	if _, err := newAttester(g).Attest(t.Context(), wanted); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
	// The type can be read, the data not written, or no quote be had.
	for _, lack := range []string{"user_report_data", "quote"} {
		dir := filepath.Join(t.TempDir(), "attestation")
		directory(t, dir, "dcap", unsigned)
		if err := os.Remove(filepath.Join(dir, lack)); err != nil {
			t.Fatal(err)
		}
		if _, err := newAttester(gramine{dir}).Attest(t.Context(), wanted); attest.CodeOf(err) != attest.CodeAttesterFailed || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without %s: %v", lack, err)
		}
		if _, err := os.Stat(filepath.Join(dir, lack)); err == nil {
			t.Errorf("%s was made", lack)
		}
	}
}

func TestGramineFails(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "attestation")
	directory(t, dir, "dcap", unsigned)
	data := filepath.Join(dir, "user_report_data")
	if err := errors.Join(os.Remove(data), os.Symlink("/dev/full", data)); err != nil {
		t.Fatal(err)
	}
	if _, err := newAttester(gramine{dir}).Attest(t.Context(), wanted); attest.CodeOf(err) != attest.CodeAttesterFailed || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("data not taken: %v", err)
	}
	kind := filepath.Join(dir, "attestation_type")
	if err := errors.Join(os.Remove(kind), os.Mkdir(kind, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := (gramine{dir}).probe(); !errors.Is(err, unix.EISDIR) {
		t.Errorf("type not read: %v", err)
	}
}

// emulatedOcclum answers the two requests as Occlum's device does.
type emulatedOcclum struct {
	size     uint32
	sizeErr  syscall.Errno
	quoteErr syscall.Errno
	says     uint32 // size it answers with; 0 leaves it, as Occlum does
	other    bool   // over other data
	seen     atomic.Int32
}

func (e *emulatedOcclum) answer(c trap.Call) (uint64, syscall.Errno) {
	arg := c.Args[2]
	if uint32(c.Args[1]) == requestSize {
		if e.sizeErr != 0 {
			return 0, e.sizeErr
		}
		return 0, written(trap.Write(arg, binary.LittleEndian.AppendUint32(nil, e.size)))
	}
	e.seen.Add(1)
	if e.quoteErr != 0 {
		return 0, e.quoteErr
	}
	request, err := trap.Read(arg, 24)
	if err != nil {
		return 0, unix.EFAULT
	}
	at := func(i int) uint64 { return binary.LittleEndian.Uint64(request[8*i:]) }
	data, err := trap.Read(at(0), 64)
	if err != nil {
		return 0, unix.EFAULT
	}
	room, err := trap.Read(at(1), 4)
	if err != nil {
		return 0, unix.EFAULT
	}
	quote := make([]byte, e.size)
	if copy(quote, unsigned(attest.ReportData(data))); e.other {
		quote[dataAt] ^= 1
	}
	if binary.LittleEndian.Uint32(room) < e.size {
		return 0, unix.EINVAL
	}
	if err := trap.Write(at(2), quote); err != nil {
		return 0, unix.EFAULT
	}
	if e.says != 0 {
		return 0, written(trap.Write(at(1), binary.LittleEndian.AppendUint32(nil, e.says)))
	}
	return 0, 0
}

func written(err error) syscall.Errno {
	if err != nil {
		return unix.EFAULT
	}
	return 0
}

func TestOcclum(t *testing.T) {
	if !trap.Again(t, nil) {
		return
	}
	var device atomic.Pointer[emulatedOcclum]
	if err := trap.Install(func(c trap.Call) (uint64, syscall.Errno) { return device.Load().answer(c) }, trap.Ioctl(requestSize), trap.Ioctl(requestQuote)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sgx")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		device *emulatedOcclum
		probe  attest.Code
		code   attest.Code
		length int
		seen   int32
	}{
		"works":           {&emulatedOcclum{size: 4600}, "", "", 4600, 1},
		"says the size":   {&emulatedOcclum{size: 4600, says: 4000}, "", "", 4000, 1},
		"says too much":   {&emulatedOcclum{size: 4600, says: 4601}, "", attest.CodeAttesterFailed, 0, 1},
		"not ready":       {&emulatedOcclum{sizeErr: unix.EIO}, attest.CodeAttesterFailed, attest.CodeAttesterFailed, 0, 0},
		"another device":  {&emulatedOcclum{sizeErr: unix.ENOTTY}, attest.CodeNoTEE, attest.CodeAttesterFailed, 0, 0},
		"no size":         {&emulatedOcclum{}, attest.CodeAttesterFailed, attest.CodeAttesterFailed, 0, 0},
		"largest":         {&emulatedOcclum{size: maxQuote}, "", "", maxQuote, 1},
		"too large":       {&emulatedOcclum{size: maxQuote + 1}, attest.CodeAttesterFailed, attest.CodeAttesterFailed, 0, 0},
		"fails":           {&emulatedOcclum{size: 4600, quoteErr: unix.EINVAL}, "", attest.CodeAttesterFailed, 0, 1},
		"over other data": {&emulatedOcclum{size: 4600, other: true}, "", attest.CodeAttesterFailed, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			device.Store(c.device)
			if _, err := firstOf([]source{occlum{path}}); attest.CodeOf(err) != c.probe {
				t.Errorf("probe: %v", err)
			}
			ev, err := newAttester(occlum{path}).Attest(t.Context(), wanted)
			for _, why := range []syscall.Errno{c.device.sizeErr, c.device.quoteErr} {
				if why != 0 && !errors.Is(err, why) {
					t.Errorf("the reason %v is lost: %v", why, err)
				}
			}
			if attest.CodeOf(err) != c.code || err == nil && len(ev.Raw) != c.length || c.device.seen.Load() != c.seen {
				t.Errorf("%v, %d requests", err, c.device.seen.Load())
			}
		})
	}
}

func TestOcclumAbsent(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{"nothing": filepath.Join(t.TempDir(), "sgx"), "a directory": t.TempDir()} {
		if err := (occlum{path}).probe(); !errors.Is(err, errNoTEE) {
			t.Errorf("%s: %v", name, err)
		}
		want := map[string]error{"nothing": fs.ErrNotExist, "a directory": unix.ENOTTY}[name]
		if _, err := newAttester(occlum{path}).Attest(t.Context(), wanted); attest.CodeOf(err) != attest.CodeAttesterFailed || !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (occlum{string([]byte{0})}).probe(); !errors.Is(err, unix.EINVAL) || errors.Is(err, errNoTEE) {
		t.Errorf("a path that cannot be opened: %v", err)
	}
}

// inEnclave runs a test in a process of its own, whose /dev is empty.
func inEnclave(t *testing.T) bool {
	id := func(inside, outside int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: inside, HostID: outside, Size: 1}}
	}
	attributes := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attributes.Cloneflags |= unix.CLONE_NEWUSER
		attributes.UidMappings, attributes.GidMappings = id(0, os.Geteuid()), id(0, os.Getegid())
	}
	if !trap.Again(t, attributes) {
		return false
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("emulated", "/dev", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	return true
}

// TestUnmodifiedGramine runs the attester as it is built, over an emulated /dev/attestation.
func TestUnmodifiedGramine(t *testing.T) {
	if !inEnclave(t) {
		return
	}
	if _, err := NewAttester(); attest.CodeOf(err) != attest.CodeNoTEE {
		t.Fatal("without devices:", err)
	}
	if _, err := Probe(); attest.CodeOf(err) != attest.CodeNoTEE {
		t.Fatal("without devices:", err)
	}
	directory(t, gramineDirectory, "dcap", unsigned)
	attestHere(t, SourceGramine)
}

// TestUnmodifiedOcclum runs the attester as it is built, over an emulated /dev/sgx.
func TestUnmodifiedOcclum(t *testing.T) {
	if !inEnclave(t) {
		return
	}
	if err := os.WriteFile(occlumDevice, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := trap.Install((&emulatedOcclum{size: 4600}).answer, trap.Ioctl(requestSize), trap.Ioctl(requestQuote)); err != nil {
		t.Fatal(err)
	}
	attestHere(t, SourceOcclum)
}

func attestHere(t *testing.T, want string) {
	t.Helper()
	if got, err := Probe(); got != want || err != nil {
		t.Fatal(got, err)
	}
	a, err := NewAttester()
	if err != nil {
		t.Fatal(err)
	}
	ev, err := a.Attest(t.Context(), wanted)
	if err != nil || !bytes.Equal(ev.Raw[dataAt:dataAt+64], wanted[:]) || a.Source() != want {
		t.Fatal(a.Source(), err)
	}
}
