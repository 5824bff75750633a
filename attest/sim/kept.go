package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/jurat-tls/jurat/attest"
)

const (
	fileMode = 0o600
	dirMode  = 0o700
)

// open decodes the keys that dir keeps in a file, or fresh ones where there are none yet; with an empty dir, they are
// fresh every time. Two processes that start at once agree on one set: the file is complete before it gets its name, and
// the name can be given only once.
func open(dir, file string, fresh func() ([]byte, error), decode func([]byte) error) error {
	if dir == "" {
		raw, err := fresh()
		if err != nil {
			return err
		}
		return decode(raw)
	}
	name := filepath.Join(dir, file)
	raw, err := read(name)
	if errors.Is(err, fs.ErrNotExist) {
		if raw, err = fresh(); err == nil {
			err = write(dir, name, raw)
		}
		if err == nil || errors.Is(err, fs.ErrExist) {
			raw, err = read(name)
		}
	}
	if err == nil {
		err = decode(raw)
	}
	if err != nil {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "sim", Subject: name, Hint: "choose another dir=, or remove the file to make a new simulated root", Err: err}
	}
	return nil
}

func read(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&^fileMode != 0 {
		return nil, fmt.Errorf("mode %v lets others read the simulated root", info.Mode().Perm())
	}
	return os.ReadFile(name)
}

// write puts keys into a new file; the error is fs.ErrExist when the name is taken.
func write(dir, name string, raw []byte) error {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".sim-*") // created with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Link(f.Name(), name)
}
