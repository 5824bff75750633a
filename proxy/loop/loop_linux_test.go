package loop_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/proxy/loop"
)

// A connection whose end was seen is watched no more while it is paused. Where the system does not take it back it is broken, rather than
// silent for ever.
func TestNotWatchedAgain(t *testing.T) {
	g, err := loop.NewGroup(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := &sink{ended: make(chan error, 2)}
	far := connect(t, g, false, func(c *loop.Conn) loop.Handler { s.c = c; return s })
	do(s.c, s.c.Pause)
	_, _ = far.Write([]byte("last"))
	do(s.c, s.c.CloseWrite)
	if _, err := io.ReadAll(far); err != nil {
		t.Error(err)
	}
	_ = far.Close()
	do(s.c, func() {}) // the loop has waited since
	do(s.c, func() {})
	var end func()
	do(s.c, func() { end = s.c.Crowd(); s.c.Resume() })
	select {
	case err := <-s.ended:
		if !errors.Is(err, unix.EBADF) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing is said")
	}
	do(s.c, end)
}
