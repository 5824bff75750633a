package nitro

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest/tsm"
)

// A device that is there but cannot be opened has another remedy than none.
func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := (nsm{dir}).probe(); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a directory: %v", err)
	}
	if err := (nsm{filepath.Join(dir, "none")}).probe(); !errors.Is(err, tsm.ErrAbsent) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := (nsm{filepath.Join(dir, "none")}).ask([]byte{0}); !errors.Is(err, tsm.ErrAbsent) {
		t.Errorf("nothing: %v", err)
	}
}
