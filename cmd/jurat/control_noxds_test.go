//go:build noxds

package main

import "github.com/rogpeppe/go-internal/testscript"

const builtWithXDS = false

func subscriber() {}

func eventually(ts *testscript.TestScript, _ bool, _ []string) { ts.Fatalf("built without xDS") }

func controlInBackground(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Fatalf("built without xDS")
}

func fleet() {}
