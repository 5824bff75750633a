package snp

import (
	"context"

	"github.com/jurat-tls/jurat/attest"
)

// CollectFromDevice collects through the kernel's character device alone.
func CollectFromDevice(data attest.ReportData) (*attest.Evidence, error) {
	report, err := device{guest: sevGuest{devicePath}}.Collect(context.Background(), data)
	if err != nil {
		return nil, err
	}
	return evidence(report, data)
}

// OpenDevice looks whether the device is there, and RequestDevice asks it for a report.
func OpenDevice(path string) error { return sevGuest{path}.open() }

// RequestDevice asks the device for a report.
func RequestDevice(path string) error {
	_, _, err := sevGuest{path}.request(commandReport, make([]byte, reportRequestSize), make([]byte, responseSize), nil)
	return err
}
