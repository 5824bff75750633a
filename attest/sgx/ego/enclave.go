//go:build ego

package ego

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/edgelesssys/ego/enclave"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sgx/collect"
)

const check = "attester"

// unsupported is how the library says that there is no enclave, or one in simulation mode.
const unsupported = "OE_UNSUPPORTED"

// Enclave is the enclave that this program runs in. Only Open makes one that works; it is safe for concurrent use.
type Enclave struct{ turn chan struct{} }

var _ attest.Attester = (*Enclave)(nil)

// Open checks that this program runs in an enclave whose quotes can be had. The error has CodeNoTEE where it does not,
// simulation included, and CodeAttesterFailed where the enclave gives no evidence.
func Open() (*Enclave, error) {
	e := &Enclave{turn: make(chan struct{}, 1)}
	var challenge attest.ReportData
	_, _ = rand.Read(challenge[:])
	if _, err := e.Attest(context.Background(), challenge); err != nil {
		return nil, err
	}
	if err := usable(enclave.GetSealKeyID()); err != nil {
		return nil, failed(err)
	}
	return e, nil
}

// Attest implements attest.Attester. The quote comes without the header that Open Enclave puts before it.
func (e *Enclave) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	if err := e.opened(); err != nil {
		return nil, err
	}
	if data.IsZero() {
		return nil, &attest.Error{Code: attest.CodeNoExpectation, Check: check, Got: "report data of zeros"}
	}
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, failed(ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		return nil, failed(err)
	}
	report, err := enclave.GetRemoteReport(data[:])
	if err != nil && err.Error() == unsupported {
		return nil, &attest.Error{Code: attest.CodeNoTEE, Check: check, Want: "an SGX enclave run by EGo, not in simulation mode", Err: err, Hint: "sign the program with ego sign and start it with ego run on a machine with SGX"}
	}
	if err != nil {
		return nil, failed(err)
	}
	ev, err := collect.OpenEnclave(report, data)
	if err != nil {
		return nil, failed(err)
	}
	return ev, nil
}

// opened refuses an Enclave that Open did not make.
func (e *Enclave) opened() error {
	if e == nil || e.turn == nil {
		return &attest.Error{Code: attest.CodeNoTEE, Check: check, Got: "an enclave that was not opened"}
	}
	return nil
}

// keySize is that of the keys the processor derives.
const keySize = 16

// usable judges a key as the library returned it, and refuses what it gives where there is no hardware: one of zeros.
func usable(key []byte, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("key of the processor: %w", err)
	case len(key) != keySize:
		return fmt.Errorf("key of the processor: %d bytes, want %d", len(key), keySize)
	case bytes.Equal(key, make([]byte, keySize)):
		return errors.New("key of the processor: all zero, as in simulation mode")
	}
	return nil
}

func failed(err error) error {
	return &attest.Error{Code: attest.CodeAttesterFailed, Check: check, Subject: "ego", Err: err}
}
