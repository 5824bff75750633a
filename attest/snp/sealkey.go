package snp

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Structures of SNP_GET_DERIVED_KEY (Linux, include/uapi/linux/sev-guest.h; MSG_KEY_REQ and MSG_KEY_RSP of 56860).
const (
	commandKey = 0x01

	keyRequestSize  = 32 // root_key_select, reserved, guest_field_select, vmpl, guest_svn, tcb_version
	keyResponseSize = 64 // MSG_KEY_RSP: status, reserved[28], key
	keySize         = 32

	fieldPolicy      = 1 << 0
	fieldImageID     = 1 << 1
	fieldFamilyID    = 1 << 2
	fieldMeasurement = 1 << 3
	fieldTCB         = 1 << 5

	tcbSize = 8
)

const checkSeal = "seal"

// KeySource gives keys to seal with that the firmware derives from the chip's own endorsement key and from what it launched: the
// guest's policy, its measurement, and the family and image of its ID block. Only that guest on that chip gets them: another image,
// another policy (such as one that allows debugging) or another chip does not. They come from the VCEK (the VLEK, where the host
// has loaded one), and not from the VMRK, which a migration agent knows.
//
// A key is of a TCB version as well: that which the firmware has committed to when it is asked for, and cannot go below any more.
// The hint tells it, so that firmware that was updated since then still gives the key, while firmware that is older does not.
//
// What is not part of a key: HOST_DATA, the keys that signed the ID block, and whatever the guest loads after its launch and that
// its measurement does not lead to.
type KeySource struct{}

// Root implements seal.Source.
func (KeySource) Root(hint []byte) (root, again []byte, err error) {
	return derivedKey(keyDevice(), hint)
}

// derivedKey asks for the key of a TCB version.
func derivedKey(guest guestDevice, hint []byte) (root, again []byte, err error) {
	if hint != nil && len(hint) != tcbSize {
		return nil, nil, attest.Refuse(attest.CodeSealBroken, checkSeal, fmt.Sprintf("a hint of %d bytes", len(hint)), "a TCB version")
	}
	committed, err := committedTCB(guest)
	if err != nil {
		return nil, nil, keyFailed(err)
	}
	if hint == nil {
		hint = committed
	}
	request, response := make([]byte, keyRequestSize), make([]byte, keyResponseSize)
	le := binary.LittleEndian
	le.PutUint64(request[8:], fieldPolicy|fieldImageID|fieldFamilyID|fieldMeasurement|fieldTCB)
	copy(request[24:], hint)
	firmware, vmm, err := guest.request(commandKey, request, response, nil)
	if err != nil || firmware != 0 || vmm != 0 {
		return nil, nil, keyFailed(errors.Join(fmt.Errorf("firmware error %#x, host error %#x", firmware, vmm), err))
	}
	const invalidParameters = 0x16
	switch status := le.Uint32(response); {
	case status == invalidParameters && string(hint) != string(committed):
		return nil, nil, attest.Refuse(attest.CodeSealForeign, checkSeal, fmt.Sprintf("what was sealed under TCB %x", hint), fmt.Sprintf("at most the committed one, %x", committed))
	case status != 0:
		return nil, nil, keyFailed(fmt.Errorf("firmware status %#x", status))
	}
	return response[keyResponseSize-keySize:], hint, nil
}

// committedTCB is that of a report, which the firmware hands over encrypted for this guest.
func committedTCB(guest guestDevice) ([]byte, error) {
	request, response := make([]byte, reportRequestSize), make([]byte, responseSize)
	firmware, vmm, err := guest.request(commandReport, request, response, nil)
	if err != nil || firmware != 0 || vmm != 0 {
		return nil, errors.Join(fmt.Errorf("firmware error %#x, host error %#x", firmware, vmm), err)
	}
	raw, err := reportOf(response)
	if err != nil {
		return nil, err
	}
	report, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	return report.CommittedTCB[:], nil
}

func keyFailed(err error) error {
	return &attest.Error{Code: attest.CodeNoSealing, Check: checkSeal, Subject: SourceDevice, Err: err}
}
