package loop

// Unread is how many connections of the loop of c are to be read on with, without having to wait. It is called in the loop.
func (c *Conn) Unread() int { return len(c.driver.(*polled).poll.unread) }
