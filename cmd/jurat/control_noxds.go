//go:build noxds

package main

import "context"

// controlCommands: this build has none of xDS, so that less is measured.
func (a *app) controlCommands() map[string]func(context.Context, []string) error { return nil }
