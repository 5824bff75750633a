package tsm

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// SourceName is how Configfs calls itself.
const SourceName = "configfs-tsm"

// Providers, as their drivers call themselves.
const (
	ProviderSNP = "sev_guest"
	ProviderTDX = "tdx_guest"
	ProviderCCA = "arm_cca_guest"
)

// directory is where the kernel offers the interface.
const directory = "/sys/kernel/config/tsm/report"

// Bounds of one collection.
const (
	maxAttribute = 64               // bytes of an attribute that is text
	maxAttempts  = 3                // of a collection that is disturbed
	maxBusy      = 8                // repetitions while the platform is busy with another request
	firstPause   = time.Second / 16 // before the first of them; each pause is twice as long as the one before
)

var errDisturbed = errors.New("another process changed the request meanwhile")

// Configfs collects through configfs-tsm (Linux 6.7, Documentation/ABI/testing/configfs-tsm-report).
type Configfs struct {
	provider       string
	maxOut, maxAux int
	dir            string
	files          fileSystem
	pause          func(context.Context, time.Duration) error
}

var _ Source = (*Configfs)(nil)

// NewConfigfs makes a source for one provider's reports of at most maxOut bytes, with at most maxAux bytes beside them (0:
// none are read). The interface serves whichever TEE the guest runs in; with another provider the source is absent.
func NewConfigfs(provider string, maxOut, maxAux int) *Configfs {
	return &Configfs{provider: provider, maxOut: maxOut, maxAux: maxAux, dir: directory, files: osFiles{}, pause: pause}
}

// Name implements Source.
func (c *Configfs) Name() string { return SourceName }

// Probe implements Source.
func (c *Configfs) Probe() error { return c.entry(c.checkProvider) }

// entry runs f over a directory of our own, which the kernel fills with attributes.
func (c *Configfs) entry(f func(dir string) error) (err error) {
	var name [8]byte
	_, _ = rand.Read(name[:])
	dir := filepath.Join(c.dir, "jurat-"+hex.EncodeToString(name[:]))
	if err := c.files.Mkdir(dir); err != nil {
		// ENXIO is what configfs answers where no TEE registered itself.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENXIO) {
			return fmt.Errorf("%w: %w", ErrAbsent, err)
		}
		return err
	}
	defer func() {
		if removed := c.files.Rmdir(dir); err == nil {
			err = removed
		}
	}()
	return f(dir)
}

func (c *Configfs) checkProvider(dir string) error {
	got, err := c.text(dir, "provider")
	if err != nil {
		return err
	}
	if got != c.provider {
		return fmt.Errorf("%w: provider is %q", ErrAbsent, got)
	}
	return nil
}

// Collect implements Source.
func (c *Configfs) Collect(ctx context.Context, data attest.ReportData) (r Report, err error) {
	for range maxAttempts {
		err = c.entry(func(dir string) error {
			r, err = c.once(ctx, dir, data)
			return err
		})
		if !errors.Is(err, errDisturbed) {
			break
		}
	}
	if err != nil {
		return Report{}, err
	}
	return r, nil
}

// once makes one request. The kernel counts writes to the request in "generation": the count must show ours alone, after
// everything is read.
func (c *Configfs) once(ctx context.Context, dir string, data attest.ReportData) (r Report, err error) {
	if err := c.checkProvider(dir); err != nil {
		return r, err
	}
	before, err := c.number(dir, "generation")
	if err != nil {
		return r, err
	}
	writes, err := c.setPrivilege(dir)
	if err != nil {
		return r, err
	}
	if err := c.files.Write(filepath.Join(dir, "inblob"), data[:]); err != nil {
		return r, err
	}
	writes++
	if r.Out, err = c.readBusy(ctx, filepath.Join(dir, "outblob"), c.maxOut); err != nil {
		return r, err
	}
	if c.maxAux > 0 {
		// The attribute is there only where the platform has something to put into it.
		r.Aux, err = c.files.Read(filepath.Join(dir, "auxblob"), c.maxAux)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
	}
	after, err := c.number(dir, "generation")
	if err != nil {
		return r, err
	}
	if after != before+writes {
		return r, errDisturbed
	}
	return r, nil
}

// setPrivilege asks for the highest privilege level that the guest may ask for. Zero is what the kernel asks for unless
// told otherwise; a guest below a paravisor must not. It returns how often it wrote.
func (c *Configfs) setPrivilege(dir string) (uint64, error) {
	floor, err := c.number(dir, "privlevel_floor")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // a TEE without privilege levels
	}
	if err != nil {
		return 0, err
	}
	if floor == 0 {
		return 0, nil
	}
	return 1, c.files.Write(filepath.Join(dir, "privlevel"), strconv.AppendUint(nil, floor, 10))
}

// readBusy reads what the platform computes on demand. TDX answers EBUSY while a request that was given up still runs.
func (c *Configfs) readBusy(ctx context.Context, path string, limit int) (raw []byte, err error) {
	for i := range maxBusy {
		raw, err = c.files.Read(path, limit)
		if !errors.Is(err, syscall.EBUSY) {
			break
		}
		if err := c.pause(ctx, firstPause<<i); err != nil {
			return nil, err
		}
	}
	return raw, err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Configfs) text(dir, attribute string) (string, error) {
	raw, err := c.files.Read(filepath.Join(dir, attribute), maxAttribute)
	return string(bytes.TrimSpace(raw)), err
}

func (c *Configfs) number(dir, attribute string) (uint64, error) {
	s, err := c.text(dir, attribute)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(s, 10, 64)
}
