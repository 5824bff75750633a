//go:build !ego

package main

import (
	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
)

const builtForEGo = false

func openEGo() (attest.Attester, error) {
	_, err := probeEGo()
	return nil, err
}

func probeEGo() (string, error) {
	return "", &attest.Error{Code: attest.CodeNoTEE, Check: "attester.collect", Got: "a program that is not built for EGo", Hint: "ego-go build -tags ego ./cmd/jurat"}
}

func sealByEGo() (seal.Source, error) {
	_, err := probeEGo()
	return nil, err
}
