package tsm

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// fileSystem is what configfs-tsm needs of a file system. An attribute takes one write and must not be created or
// truncated.
type fileSystem interface {
	Mkdir(path string) error
	Write(path string, content []byte) error
	Read(path string, limit int) ([]byte, error)
	Rmdir(path string) error
}

// osFiles is the real file system.
type osFiles struct{}

func (osFiles) Mkdir(path string) error { return os.Mkdir(path, 0o700) }
func (osFiles) Rmdir(path string) error { return os.Remove(path) }

func (osFiles) Write(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func (osFiles) Read(path string, limit int) ([]byte, error) { return ReadFile(path, limit) }

// ReadFile reads a file of at most limit bytes; a larger one is an error.
func ReadFile(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if len(raw) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return raw, err
}
