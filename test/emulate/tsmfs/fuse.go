//go:build linux

// Package tsmfs emulates Linux's configfs-tsm over FUSE, for collectors that run unmodified. It behaves as the kernel does
// (drivers/virt/coco/guest/report.c): a directory that a program makes is filled with attributes; writing inblob or
// privlevel counts up generation; reading outblob makes the report, once for each generation.
package tsmfs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Platform is the trusted security module behind the file system.
type Platform struct {
	Provider string // such as "sev_guest"; empty: no driver registered itself
	// Floor is the least privilege level that the guest may ask for; negative: the platform has no levels.
	Floor int
	// HasAux tells whether there is an auxblob.
	HasAux bool
	// Report answers one request.
	Report func(data []byte, level int) (out, aux []byte, err syscall.Errno)
}

// Faults are what goes wrong. The counters count down.
type Faults struct {
	Busy     int           // readings of outblob that answer EBUSY
	Fail     syscall.Errno // of outblob
	Truncate int           // bytes missing at the end of outblob
	Disturb  int           // requests that another process writes to meanwhile
	Delay    time.Duration // before a report
}

// FS is a mounted emulation.
type FS struct {
	mu       sync.Mutex
	platform Platform
	faults   Faults
	reports  int
	entries  int
	server   *fuse.Server
}

// Mount mounts the emulation at dir, which becomes /sys/kernel/config/tsm. It needs the right to mount.
func Mount(dir string, p Platform, f Faults) (*FS, error) {
	t := &FS{platform: p, faults: f}
	server, err := fs.Mount(dir, &root{fs: t}, &fs.Options{MountOptions: fuse.MountOptions{FsName: "tsm", Name: "tsm", DirectMountStrict: true}})
	t.server = server
	return t, err
}

// Unmount ends it.
func (t *FS) Unmount() error { return t.server.Unmount() }

// Reports counts the reports made, and Entries the directories that programs have not removed.
func (t *FS) Reports() int { return locked(t, func() int { return t.reports }) }

// Entries counts the directories that programs made and did not remove.
func (t *FS) Entries() int { return locked(t, func() int { return t.entries }) }

func locked[T any](t *FS, f func() T) T {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f()
}

type root struct {
	fs.Inode
	fs *FS
}

type reports struct {
	fs.Inode
	fs *FS
}

var (
	_ fs.NodeOnAdder = (*root)(nil)
	_ fs.NodeMkdirer = (*reports)(nil)
	_ fs.NodeRmdirer = (*reports)(nil)
)

func (r *root) OnAdd(ctx context.Context) {
	r.AddChild("report", r.NewPersistentInode(ctx, &reports{fs: r.fs}, fs.StableAttr{Mode: syscall.S_IFDIR}), true)
}

func (d *reports) Mkdir(ctx context.Context, _ string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	t := d.fs
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.platform.Provider == "" {
		return nil, syscall.ENXIO
	}
	t.entries++
	e := &entry{fs: t, made: -1}
	dir := d.NewPersistentInode(ctx, e, fs.StableAttr{Mode: syscall.S_IFDIR})
	modes := map[string]uint32{"provider": 0o444, "generation": 0o444, "inblob": 0o200, "outblob": 0o400}
	if t.platform.HasAux {
		modes["auxblob"] = 0o400
	}
	if t.platform.Floor >= 0 {
		modes["privlevel"], modes["privlevel_floor"] = 0o200, 0o444
	}
	for name, mode := range modes {
		dir.AddChild(name, d.NewPersistentInode(ctx, &attribute{entry: e, name: name, mode: mode}, fs.StableAttr{Mode: syscall.S_IFREG}), true)
	}
	return dir, 0
}

func (d *reports) Rmdir(_ context.Context, name string) syscall.Errno {
	child := d.GetChild(name)
	if child == nil {
		return syscall.ENOENT
	}
	child.RmAllChildren() // attributes do not count, as in configfs
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	d.fs.entries--
	return 0
}

// entry is one request.
type entry struct {
	fs.Inode
	fs         *FS
	generation int
	made       int // generation of the report
	level      int
	in         []byte
	out, aux   []byte
}

func (e *entry) write(name string, content []byte) syscall.Errno {
	e.fs.mu.Lock()
	defer e.fs.mu.Unlock()
	switch name {
	case "inblob":
		if len(content) == 0 || len(content) > 64 {
			return syscall.EFBIG
		}
		e.in = content
	case "privlevel":
		level, err := strconv.ParseUint(strings.TrimSpace(string(content)), 0, 32)
		if err != nil || int(level) < e.fs.platform.Floor || level > 3 {
			return syscall.EINVAL
		}
		e.level = int(level)
	default:
		return syscall.EACCES
	}
	e.generation++
	return 0
}

func (e *entry) read(name string) ([]byte, syscall.Errno) {
	t := e.fs
	t.mu.Lock()
	defer t.mu.Unlock()
	switch name {
	case "provider":
		return []byte(t.platform.Provider + "\n"), 0
	case "generation":
		return fmt.Appendf(nil, "%d\n", e.generation), 0
	case "privlevel_floor":
		return fmt.Appendf(nil, "%d\n", t.platform.Floor), 0
	case "outblob":
		errno := e.make()
		return e.out, errno
	case "auxblob":
		errno := e.make()
		return e.aux, errno
	}
	return nil, syscall.EACCES
}

// make makes the report unless it is there.
func (e *entry) make() syscall.Errno {
	t := e.fs
	if len(e.in) == 0 {
		return syscall.EINVAL
	}
	if e.made == e.generation {
		return 0
	}
	if t.faults.Busy > 0 {
		t.faults.Busy--
		return syscall.EBUSY
	}
	if t.faults.Fail != 0 {
		return t.faults.Fail
	}
	if t.faults.Delay > 0 {
		time.Sleep(t.faults.Delay) // as firmware that takes its time
	}
	if t.faults.Disturb > 0 {
		t.faults.Disturb--
		e.generation++
	}
	out, aux, errno := t.platform.Report(e.in, e.level)
	if errno != 0 {
		return errno
	}
	t.reports++
	e.out, e.aux, e.made = out[:len(out)-t.faults.Truncate], aux, e.generation
	return 0
}

type attribute struct {
	fs.Inode
	entry *entry
	name  string
	mode  uint32
}

var (
	_ fs.NodeOpener    = (*attribute)(nil)
	_ fs.NodeGetattrer = (*attribute)(nil)
	_ fs.NodeSetattrer = (*attribute)(nil)
)

func (a *attribute) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return &handle{attribute: a}, fuse.FOPEN_DIRECT_IO, 0
}

func (a *attribute) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = a.mode
	return 0
}

// Setattr refuses: nobody truncates an attribute.
func (a *attribute) Setattr(context.Context, fs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EPERM
}

// handle is an open attribute. What is written counts when it is closed, and what is read is read whole at first, as in
// configfs.
type handle struct {
	*attribute
	mu      sync.Mutex
	written []byte
	content []byte
	read    bool
}

var (
	_ fs.FileReader  = (*handle)(nil)
	_ fs.FileWriter  = (*handle)(nil)
	_ fs.FileFlusher = (*handle)(nil)
)

func (h *handle) Read(_ context.Context, dest []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.read {
		content, errno := h.entry.read(h.name)
		if errno != 0 {
			return nil, errno
		}
		h.content, h.read = content, true
	}
	rest := h.content[min(at, int64(len(h.content))):]
	return fuse.ReadResultData(rest[:min(len(rest), len(dest))]), 0
}

func (h *handle) Write(_ context.Context, data []byte, at int64) (uint32, syscall.Errno) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at != int64(len(h.written)) || len(h.written)+len(data) > 4096 {
		return 0, syscall.EINVAL
	}
	h.written = append(h.written, data...)
	return uint32(len(data)), 0
}

func (h *handle) Flush(context.Context) syscall.Errno {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.written == nil {
		return 0
	}
	content := h.written
	h.written = nil
	return h.entry.write(h.name, content)
}
