package admin

import "net"

// Guarded is the check of Host of a server that listens on addr.
func Guarded(addr net.Addr, opts Options) func(host string) bool { return newHosts(addr, opts).has }

// Printable is what is shown of a name.
func Printable(s string) string { return printable(s) }
