//go:build !linux

package loop

func newPoller(*Loop, bool) (poller, error) { return newWaiter(), nil }

// polled is the driver of systems with epoll.
type polled struct{ conn *Conn }

func (*polled) look() {}
