//go:build !linux

package main

import "os/exec"

// endsWithUs can't be had here: the command goes on with what it trusted last.
func endsWithUs(*exec.Cmd) {}
