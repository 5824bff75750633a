package loop

func newPoller(l *Loop, portable bool) (poller, error) {
	if portable {
		return newWaiter(), nil
	}
	return newEpoll(l)
}
