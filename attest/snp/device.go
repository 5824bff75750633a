package snp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
)

// Commands and structures of /dev/sev-guest (Linux, include/uapi/linux/sev-guest.h).
const (
	commandReport   = 0x00 // SNP_GET_REPORT
	commandExtended = 0x02 // SNP_GET_EXT_REPORT: also the host's certificate table

	reportRequestSize   = 96   // user_data[64], vmpl, reserved[28]
	extendedRequestSize = 112  // the above, certs_address, certs_len, padding
	responseSize        = 4000 // MSG_REPORT_RSP (56860 table 24): status, size, reserved[24], report
	responseHeader      = 32

	pageSize         = 4096
	firstTableSize   = 4 * pageSize
	vmmInvalidLength = 1 // SNP_GUEST_VMM_ERR_INVALID_LEN
)

// guestDevice makes one request. The implementation puts the address of certs into the request where there are any, and
// returns both halves of exitinfo2.
type guestDevice interface {
	open() error
	request(command uintptr, request, response, certs []byte) (firmware, vmm uint32, err error)
}

// device collects through the character device, for kernels without configfs-tsm.
type device struct{ guest guestDevice }

// Name implements tsm.Source.
func (d device) Name() string { return SourceDevice }

// Probe implements tsm.Source.
func (d device) Probe() error { return d.guest.open() }

// Collect implements tsm.Source.
func (d device) Collect(_ context.Context, data attest.ReportData) (tsm.Report, error) {
	size := firstTableSize
	for range 2 { // a second time with the size that the host asks for
		request := make([]byte, extendedRequestSize)
		copy(request, data[:])
		binary.LittleEndian.PutUint32(request[104:], uint32(size))
		response, certs := make([]byte, responseSize), make([]byte, size)
		firmware, vmm, err := d.guest.request(commandExtended, request, response, certs)
		if err == nil && firmware == 0 && vmm == 0 {
			report, err := reportOf(response)
			return tsm.Report{Out: report, Aux: certs}, err
		}
		wanted := binary.LittleEndian.Uint32(request[104:])
		if vmm != vmmInvalidLength || wanted <= uint32(size) || wanted > maxCertTable || wanted%pageSize != 0 {
			break
		}
		size = int(wanted)
	}
	// The host supplies no certificates, or too many.
	request, response := make([]byte, reportRequestSize), make([]byte, responseSize)
	copy(request, data[:])
	firmware, vmm, err := d.guest.request(commandReport, request, response, nil)
	if err != nil || firmware != 0 || vmm != 0 {
		return tsm.Report{}, errors.Join(fmt.Errorf("firmware error %#x, host error %#x", firmware, vmm), err)
	}
	report, err := reportOf(response)
	return tsm.Report{Out: report}, err
}

func reportOf(response []byte) ([]byte, error) {
	status, size := binary.LittleEndian.Uint32(response), binary.LittleEndian.Uint32(response[4:])
	if status != 0 || size != ReportSize {
		return nil, fmt.Errorf("firmware status %#x with a report of %d bytes", status, size)
	}
	return response[responseHeader : responseHeader+ReportSize], nil
}
