package public

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/jurat-tls/jurat/attest"
)

const (
	// beat is how often who holds a lock shows that it still does.
	beat = 2 * time.Second
	// stale is for how long a lock has to be seen unchanged until it is taken to be left behind.
	stale = 15 * time.Second
)

// NewDirectory is a Storage of files, which processes that seal with the same key can share. Every value is sealed, in the context of its
// key: what lies under another one's name does not open. Whoever owns the disk can take values away, and bring older ones back; what
// that can lead to is a certificate that was ours, and that has not expired. The error is an *attest.Error: CodeNoSealing without a
// Sealer.
func NewDirectory(dir string, sealer Sealer) (*Storage, error) {
	if sealer == nil {
		return nil, &attest.Error{Code: attest.CodeNoSealing, Check: "public.storage", Subject: dir}
	}
	made := os.MkdirAll(dir, 0o700)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "public.storage", Subject: dir, Want: "a directory that can be written", Err: cmp.Or(made, err)}
	}
	own := &memory{locks: map[string]chan struct{}{}}
	d := &directory{root: root, sealer: sealer, own: own, beat: beat, stale: stale, held: map[string]*lease{}}
	return &Storage{values: d, close: d.close}, nil
}

// directory implements certmagic.Storage. The name of a file is made of its key so that it can't leave the directory, and no link in there
// leads out of it.
type directory struct {
	root   *os.Root
	sealer Sealer
	own    *memory // its locks alone: within this process nobody who owns the disk gives one to two
	beat   time.Duration
	stale  time.Duration

	mu   sync.Mutex
	held map[string]*lease
}

func (d *directory) close() error {
	d.mu.Lock()
	held := d.held
	d.held = map[string]*lease{}
	d.mu.Unlock()
	for _, l := range held {
		l.end()
	}
	return d.root.Close()
}

// sealed ends the names of files. The tilde is in no other name: a key can be below another one.
const sealed = "~sealed"

// maxName is what a component of a file name may have.
const maxName = 240

// pathOf is where what is below a key lies, and with sealed behind it, what is stored there.
func pathOf(key string) (string, error) {
	var parts []string
	for part := range strings.SplitSeq(key, "/") {
		var b strings.Builder
		for i, c := range []byte(part) {
			switch {
			case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
				b.WriteByte(c)
			default: // upper case too: there are file systems to which it is the same
				fmt.Fprintf(&b, "%%%02x", c)
			}
		}
		if part == "" || b.Len() > maxName {
			return "", &attest.Error{Code: attest.CodeInternal, Check: "public.storage", Got: fmt.Sprintf("the key %.100q", key), Want: "parts of a path with at most 240 bytes"}
		}
		parts = append(parts, b.String())
	}
	return path.Join(parts...), nil
}

// keyOf undoes pathOf. It answers false for what is none of ours, such as a file that is being written.
func keyOf(name string) (key string, ok bool) {
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		var b []byte
		for i := 0; i < len(part); i++ {
			if part[i] != '%' {
				b = append(b, part[i])
				continue
			}
			c, _ := hex.DecodeString(part[min(i+1, len(part)):min(i+3, len(part))])
			if len(c) != 1 {
				return "", false
			}
			b = append(b, c[0])
			i += 2
		}
		parts = append(parts, string(b))
	}
	key = strings.Join(parts, "/")
	again, err := pathOf(key)
	return key, err == nil && again == name
}

// contextOf is what a value is sealed for.
func contextOf(key string) string { return "public certificates: " + key }

func (d *directory) Store(_ context.Context, key string, value []byte) error {
	if err := checkValue(key, value); err != nil {
		return err
	}
	name, err := pathOf(key)
	if err != nil {
		return err
	}
	closed, err := d.sealer.Seal(contextOf(key), value)
	if len(value) >= 16 && bytes.Contains(closed, value) {
		err = errors.New("what was sealed can be read")
	}
	if err != nil {
		return &attest.Error{Code: attest.CodeStoreBroken, Check: "public.storage", Subject: key, Err: err}
	}
	return d.write(name+sealed, closed)
}

// write replaces a file as a whole.
func (d *directory) write(name string, value []byte) error {
	dir := path.Dir(name)
	made := d.root.MkdirAll(dir, 0o700)
	tmp := path.Join(dir, ".new-"+rand.Text())
	f, err := d.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return cmp.Or(made, err)
	}
	_, err = f.Write(value)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = d.root.Rename(tmp, name)
	}
	if err != nil {
		_ = d.root.Remove(tmp)
		return err
	}
	f, _ = d.root.Open(dir) // the name, too, is to outlive a power failure
	_, _ = f.Sync(), f.Close()
	return nil
}

func (d *directory) Load(_ context.Context, key string) ([]byte, error) {
	name, err := pathOf(key)
	if err != nil {
		return nil, err
	}
	closed, err := d.read(name+sealed, 2*maxValue)
	if err != nil {
		return nil, err
	}
	value, err := d.sealer.Open(contextOf(key), closed)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeStoreBroken, Check: "public.storage", Subject: key, Err: err}
	}
	return value, nil
}

// read reads a file of ours, which has most bytes at most: of more than we write it answers the beginning, which does not open. What
// else somebody has put in its place is broken: a link, a pipe.
func (d *directory) read(name string, most int64) ([]byte, error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &attest.Error{Code: attest.CodeStoreBroken, Check: "public.storage", Subject: name, Want: "a regular file"}
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // nor is a pipe that comes now to hold us up
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

func (d *directory) Delete(_ context.Context, key string) error {
	name, err := pathOf(key)
	if err != nil {
		return err
	}
	return errors.Join(d.root.RemoveAll(name+sealed), d.root.RemoveAll(name))
}

func (d *directory) Exists(ctx context.Context, key string) bool {
	_, err := d.Stat(ctx, key)
	return err == nil
}

func (d *directory) List(_ context.Context, prefix string, recursive bool) ([]string, error) {
	start := "."
	if prefix != "" {
		var err error
		if start, err = pathOf(prefix); err != nil {
			return nil, err
		}
	}
	found := map[string]bool{}
	err := fs.WalkDir(d.root.FS(), start, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == start {
			return err
		}
		key, ours := keyOf(strings.TrimSuffix(name, sealed))
		if ours && (e.IsDir() || strings.HasSuffix(name, sealed)) {
			found[key] = true
		}
		if e.IsDir() && !recursive {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return listed(found)
}

func (d *directory) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	name, err := pathOf(key)
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	info, err := d.root.Lstat(name + sealed)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: info.ModTime(), Size: info.Size(), IsTerminal: true}, nil
	}
	if info, below := d.root.Lstat(name); below == nil && info.IsDir() {
		return certmagic.KeyInfo{Key: key, Modified: info.ModTime()}, nil
	}
	return certmagic.KeyInfo{}, err
}

// lease is a lock that is held: a file that changes for as long as it is.
type lease struct {
	file  *os.File
	owner []byte
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
}

func (l *lease) end() {
	l.once.Do(func() { close(l.stop) })
	<-l.done
}

// locks is where their files are. A key can't have that name.
const locks = ".locks"

func lockName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return path.Join(locks, hex.EncodeToString(sum[:]))
}

// Lock waits for as long as another process, or another caller here, has the lock. One that was left behind is known by a file that does
// not change while it is watched: no clocks of two machines are compared.
func (d *directory) Lock(ctx context.Context, name string) error {
	err := d.own.Lock(ctx, name)
	if err != nil {
		return err
	}
	if err = d.lock(ctx, name); err != nil {
		_ = d.own.Unlock(ctx, name)
	}
	return err
}

// lock is Lock among processes.
func (d *directory) lock(ctx context.Context, name string) error {
	file := lockName(name)
	_ = d.root.MkdirAll(locks, 0o700) // where that fails nothing can be taken there
	var seen []byte
	var since time.Time
	for {
		l, err := d.take(file)
		if err == nil {
			d.mu.Lock()
			d.held[name] = l
			d.mu.Unlock()
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		switch now, _ := d.read(file, lockSize); {
		case since.IsZero() || !bytes.Equal(now, seen):
			seen, since = now, time.Now()
		case time.Since(since) > d.stale:
			d.clear(file, seen)
			since = time.Time{}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d.beat / 8):
		}
	}
}

// lockSize is what is in the file of a lock: who has it, and a number that rises.
const lockSize = 16 + 8

func (d *directory) take(name string) (*lease, error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	l := &lease{file: f, owner: make([]byte, 16), stop: make(chan struct{}), done: make(chan struct{})}
	_, _ = rand.Read(l.owner) // which never fails
	if _, err := f.WriteAt(append(l.owner[:16:16], make([]byte, 8)...), 0); err != nil {
		_ = f.Close()
		_ = d.root.Remove(name)
		return nil, err
	}
	go l.keep(d.beat)
	return l, nil
}

// keep shows that the lock is held. What goes wrong with that shows to others alone.
func (l *lease) keep(every time.Duration) {
	defer close(l.done)
	defer l.file.Close()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
			_, _ = l.file.WriteAt(binary.BigEndian.AppendUint64(nil, n), 16)
		}
	}
}

// clear takes away a lock that was left behind. Of two that have seen it one may come so late that there is a new one, which is put
// back.
func (d *directory) clear(name string, seen []byte) {
	aside := path.Join(locks, ".left-"+rand.Text())
	if d.root.Rename(name, aside) != nil {
		return
	}
	if now, _ := d.read(aside, lockSize); !bytes.Equal(now, seen) {
		_ = d.root.Link(aside, name)
	}
	_ = d.root.Remove(aside)
}

// Unlock gives back what Lock has taken, whether ctx has ended or not.
func (d *directory) Unlock(ctx context.Context, name string) error {
	defer func() { _ = d.own.Unlock(ctx, name) }()
	d.mu.Lock()
	l := d.held[name]
	delete(d.held, name)
	d.mu.Unlock()
	if l == nil {
		return errNotHeld(name)
	}
	l.end()
	file := lockName(name)
	if now, _ := d.read(file, lockSize); !bytes.HasPrefix(now, l.owner) {
		return nil // it was taken for one that was left behind
	}
	return d.root.Remove(file)
}
