//go:build noxds

package main

import "net"

// secrets are none.
type secrets struct{}

func checkSecretName(string) error { return nil }

func (o *operation) hand(*serveConfig) (done func(), err error) { return func() {}, nil }

func (*secrets) use(*generation) {}

func (*secrets) publish() {}

func (*secrets) listener() net.Listener { return nil }

func (*secrets) dump() any { return nil }
