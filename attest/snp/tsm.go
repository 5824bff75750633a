package snp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/jurat-tls/jurat/attest"
)

// tsmFS is what configfs-tsm needs of a file system. An attribute takes one write and must not be created or truncated.
type tsmFS interface {
	Mkdir(path string) error
	Write(path string, content []byte) error
	Read(path string, limit int) ([]byte, error)
	Rmdir(path string) error
}

// tsm collects through configfs-tsm (Linux 6.7, Documentation/ABI/testing/configfs-tsm-report).
type tsm struct {
	fs  tsmFS
	dir string
}

// provider is how the driver of SEV-SNP calls itself.
const provider = "sev_guest"

// maxAttempts bounds how often a disturbed collection is repeated.
const maxAttempts = 3

var errDisturbed = errors.New("another process changed the request meanwhile")

func (t tsm) name() string { return SourceTSM }

func (t tsm) probe() error {
	return t.entry(func(dir string) error { return t.checkProvider(dir) })
}

// entry runs f over a directory of our own, which the kernel fills with attributes.
func (t tsm) entry(f func(dir string) error) (err error) {
	var name [8]byte
	_, _ = rand.Read(name[:])
	dir := filepath.Join(t.dir, "jurat-"+hex.EncodeToString(name[:]))
	if err := t.fs.Mkdir(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errUnsupported) {
			return fmt.Errorf("%w: %w", errNoTEE, err)
		}
		return err
	}
	defer func() {
		if removed := t.fs.Rmdir(dir); err == nil {
			err = removed
		}
	}()
	return f(dir)
}

func (t tsm) checkProvider(dir string) error {
	got, err := t.fs.Read(filepath.Join(dir, "provider"), 64)
	if err != nil {
		return err
	}
	if got = bytes.TrimSpace(got); string(got) != provider {
		return fmt.Errorf("%w: provider is %.64q", errNoTEE, got)
	}
	return nil
}

func (t tsm) collect(ctx context.Context, data attest.ReportData) (report, table []byte, err error) {
	for range maxAttempts {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		err = t.entry(func(dir string) error {
			report, table, err = t.once(dir, data)
			return err
		})
		if !errors.Is(err, errDisturbed) {
			break
		}
	}
	return report, table, err
}

// once makes one request. The kernel counts changes of the request in "generation": it must be as we left it both before
// the answer is read and after.
func (t tsm) once(dir string, data attest.ReportData) (report, table []byte, err error) {
	if err := t.checkProvider(dir); err != nil {
		return nil, nil, err
	}
	before, err := t.generation(dir)
	if err != nil {
		return nil, nil, err
	}
	if err := t.fs.Write(filepath.Join(dir, "inblob"), data[:]); err != nil {
		return nil, nil, err
	}
	if report, err = t.fs.Read(filepath.Join(dir, "outblob"), ReportSize); err != nil {
		return nil, nil, err
	}
	// The attribute is there only where the host supplies certificates.
	table, err = t.fs.Read(filepath.Join(dir, "auxblob"), maxCertTable)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	after, err := t.generation(dir)
	if err != nil {
		return nil, nil, err
	}
	if after != before+1 {
		return nil, nil, errDisturbed
	}
	return report, table, nil
}

func (t tsm) generation(dir string) (uint64, error) {
	raw, err := t.fs.Read(filepath.Join(dir, "generation"), 32)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(bytes.TrimSpace(raw)), 10, 64)
}

// osFS is the real file system.
type osFS struct{}

func (osFS) Mkdir(path string) error { return os.Mkdir(path, 0o700) }
func (osFS) Rmdir(path string) error { return os.Remove(path) }

func (osFS) Write(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func (osFS) Read(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(raw) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return raw, err
}
