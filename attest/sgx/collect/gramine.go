package collect

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/jurat-tls/jurat/attest"
)

// gramine asks Gramine by its pseudo-files (Gramine documentation, "Attestation and Secret Provisioning"). The quote is
// made when the file is opened, over what user_report_data held then; both are of the whole process.
type gramine struct{ dir string }

const (
	gramineDirectory = "/dev/attestation"
	dcap             = "dcap"
)

func (gramine) name() string { return SourceGramine }

// probe reads the type of attestation, which the manifest fixes: "none", "epid" or "dcap".
func (g gramine) probe() error {
	kind, err := read(filepath.Join(g.dir, "attestation_type"), len(dcap))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errNoTEE, err)
	}
	if err != nil {
		return err
	}
	if string(kind) != dcap {
		return fmt.Errorf("attestation_type is %q, want dcap: set sgx.remote_attestation in the manifest", kind)
	}
	return nil
}

func (g gramine) quote(data attest.ReportData) ([]byte, error) {
	f, err := os.OpenFile(filepath.Join(g.dir, "user_report_data"), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	// Gramine takes the data over when the file is closed.
	_, err = f.Write(data[:])
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return read(filepath.Join(g.dir, "quote"), maxQuote)
}

// read reads a file, but no more than one byte beyond limit: who reads less than a whole file has too long a one.
func read(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(limit)+1))
}
