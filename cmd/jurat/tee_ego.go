//go:build ego

package main

import (
	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
	"github.com/jurat-tls/jurat/attest/sgx/ego"
)

const builtForEGo = true

func openEGo() (attest.Attester, error) { return ego.Open() }

func probeEGo() (string, error) {
	if _, err := ego.Open(); err != nil {
		return "", err
	}
	return "EGo", nil
}

func sealByEGo() (seal.Source, error) {
	enclave, err := ego.Open()
	if err != nil {
		return nil, err
	}
	return enclave.NewKeySource(ego.Unique), nil
}
