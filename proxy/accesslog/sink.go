package accesslog

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/jurat-tls/jurat/attest"
)

// Opener opens what lines are written to. Reopen calls it again.
type Opener func() (io.WriteCloser, error)

// File appends to the file of that name, which is made with mode 0640 where it does not exist; it may be a named pipe that
// somebody reads. The error is an *attest.Error with CodeConfigValue.
func File(name string) Opener {
	return func() (io.WriteCloser, error) {
		// O_NONBLOCK: opening a pipe that nobody reads fails, instead of keeping the proxy from starting.
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o640)
		if err != nil {
			var at *fs.PathError
			if errors.As(err, &at) {
				err = at.Err
			}
			return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "access_log", Subject: name, Want: "a file that can be appended to", Err: err}
		}
		return f, nil
	}
}

// Stream writes to w, such as standard output, and never closes it. A Write to w that hangs for ever keeps one goroutine.
func Stream(w io.Writer) Opener {
	return func() (io.WriteCloser, error) { return stream{w}, nil }
}

type stream struct{ io.Writer }

func (stream) Close() error { return nil }
