package session

// Doom is the first half of Refuse: from now on the connection has failed, and nobody was told. Tell is the other half.
func Doom(c *Conn, err error) { c.failure.Store(&err) }

func Tell(c *Conn) { c.giveUp(c.failed()) }

// Due is what the time to ask the other end does when it has come.
func Due(c *Conn) { c.reattest() }
