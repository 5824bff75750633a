package evlog

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// lockWait is how long Open waits for another process to be done with a log. One that appraises a single peer soon is.
var lockWait = 5 * time.Second

// errLocked is the answer of lock where another process has the lock.
var errLocked = errors.New("another process writes it")

// acquire keeps other processes from writing to the directory for as long as the file is open.
func acquire(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, broken(dir, err)
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		err := lock(f)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, errLocked):
			return nil, broken(dir, errors.Join(err, f.Close()))
		case time.Now().After(end):
			return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "log", Subject: dir, Want: "a log of this process alone", Err: errors.Join(err, f.Close())}
		}
	}
}
