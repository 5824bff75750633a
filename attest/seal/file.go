package seal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/jurat-tls/jurat/internal/durable"
)

// File is a file whose content is sealed.
type File struct {
	sealer        *Sealer
	path, context string
}

// NewFile makes a File of a path, whose directory has to be there. What it holds is sealed under the context, not under its path.
func NewFile(sealer *Sealer, path, context string) *File { return &File{sealer, path, context} }

// maxSealed is the most that Seal makes.
const maxSealed = len(header) + 1 + MaxPlatform + 2 + MaxHint + saltSize + 2*tagSize + overhead + MaxPlain

// Load gives what was saved last, nil where nothing was. See Open for its errors.
func (f *File) Load() ([]byte, error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sealed, err := io.ReadAll(io.LimitReader(file, int64(maxSealed)+1))
	if err != nil {
		return nil, err
	}
	plain, err := f.sealer.Open(f.context, sealed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return plain, nil
}

// Save replaces what was saved before.
func (f *File) Save(plain []byte) error {
	sealed, err := f.sealer.Seal(f.context, plain)
	if err != nil {
		return err
	}
	return durable.WriteFile(f.path, sealed)
}
