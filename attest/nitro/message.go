package nitro

import (
	"errors"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// maxResponse bounds the module's answer in bytes (drivers/misc/nsm.c). A request may have 4096; ours has under 200.
const maxResponse = 0x3000

// encodeRequest asks for a document over data alone: {"Attestation": {"user_data": data, "nonce": null, "public_key": null}}.
func encodeRequest(data attest.ReportData) []byte {
	request := []byte("\xa1\x6bAttestation\xa3\x69user_data\x58\x40")
	request = append(request, data[:]...)
	return append(request, "\x65nonce\xf6\x6apublic_key\xf6"...)
}

// decodeResponse takes the document out of {"Attestation": {"document": …}}. The other answer is {"Error": …}.
func decodeResponse(raw []byte) ([]byte, error) {
	v, err := strictcbor.Parse(raw, strictcbor.Limits{Depth: 3, Items: 8, AnyLength: true, OpenMaps: true})
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if code, ok := v.Field("Error").Text(); ok {
		return nil, fmt.Errorf("the module answers %.40q", code)
	}
	document, ok := v.Field("Attestation").Field("document").Bytes()
	if !ok {
		return nil, errors.New("an answer without a document")
	}
	return document, nil
}
