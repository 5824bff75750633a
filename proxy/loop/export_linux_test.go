package loop

// Crowd has the system watch no more for the loop of c, until end is called. Both are called in the loop.
func (c *Conn) Crowd() (end func()) {
	p := c.driver.(*polled).poll
	fd := p.fd
	p.fd = -1
	return func() { p.fd = fd }
}
