package tpm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/jurat-tls/jurat/attest"
)

// DevicePath is the kernel's TPM with its resource manager, which keeps our objects apart from those of others.
const DevicePath = "/dev/tpmrm0"

// Device is a TPM. It is not safe for concurrent use.
type Device struct {
	conn io.Closer
	tpm  transport.TPM
}

// Open opens the TPM at path, such as DevicePath. The error has CodeNoTEE when there is none.
func Open(path string) (*Device, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &attest.Error{Code: attest.CodeNoTEE, Check: checkCollect, Want: "a TPM 2.0", Err: err}
	case err != nil:
		return nil, &attest.Error{Code: attest.CodeAttesterFailed, Check: checkCollect, Err: err, Hint: "run as a user who may use it, such as one of the group tss"}
	}
	return NewDevice(f), nil
}

// NewDevice makes a Device of a connection to a TPM: one command is written, one response read.
func NewDevice(conn io.ReadWriteCloser) *Device {
	return &Device{conn: conn, tpm: transport.FromReadWriteCloser(conn)}
}

// Close closes the connection; the resource manager then flushes what was loaded over it.
func (d *Device) Close() error { return d.conn.Close() }

// ReadIndex reads a whole index of the TPM's memory that needs no authorization; it has less than 64 KiB.
func (d *Device) ReadIndex(index uint32) ([]byte, error) {
	public, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(d.tpm)
	if err != nil {
		return nil, fmt.Errorf("index %#x: %w", index, err)
	}
	contents, err := public.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("index %#x: %w", index, err)
	}
	handle := tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: public.NVName}
	const block = 512 // every TPM answers as many at once (TPM_PT_NV_BUFFER_MAX)
	var out []byte
	for len(out) < int(contents.DataSize) {
		size := min(block, int(contents.DataSize)-len(out))
		read, err := tpm2.NVRead{AuthHandle: handle, NVIndex: handle, Size: uint16(size), Offset: uint16(len(out))}.Execute(d.tpm)
		if err != nil {
			return nil, fmt.Errorf("index %#x: %w", index, err)
		}
		if len(read.Data.Buffer) != size {
			return nil, fmt.Errorf("index %#x answers %d of %d bytes", index, len(read.Data.Buffer), size)
		}
		out = append(out, read.Data.Buffer...)
	}
	return out, nil
}

// key is an attestation key in the TPM.
type key struct {
	handle tpm2.NamedHandle
	public []byte // TPMT_PUBLIC
}

// QuoteBy makes a quote by a key that was put into the TPM for good: over the fold of data and the PCRs named. It answers
// its parts.
func (d *Device) QuoteBy(handle uint32, data attest.ReportData, pcrs []int) (map[Part][]byte, error) {
	pcrs, err := checkPCRs(pcrs)
	if err != nil {
		return nil, err
	}
	read, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(d.tpm)
	if err != nil {
		return nil, failed(fmt.Errorf("key %#x: %w", handle, err))
	}
	k := &key{tpm2.NamedHandle{Handle: tpm2.TPMHandle(handle), Name: read.Name}, read.OutPublic.Bytes()}
	folded := data.Fold()
	message, signature, values, err := d.quote(k, folded[:foldedSize], pcrs)
	if err != nil {
		return nil, failed(err)
	}
	return map[Part][]byte{PartQuote: message, PartSignature: signature, PartPCRs: values}, nil
}

// create makes the key that the endorsement hierarchy holds for a template: the same one every time.
func (d *Device) create(template []byte) (*key, error) {
	created, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHEndorsement,
		InPublic:      tpm2.BytesAs2B[tpm2.TPMTPublic](template),
	}.Execute(d.tpm)
	if err != nil {
		return nil, fmt.Errorf("attestation key: %w", err)
	}
	return &key{tpm2.NamedHandle{Handle: created.ObjectHandle, Name: created.Name}, created.OutPublic.Bytes()}, nil
}

// template is that of our attestation key: ECDSA on P-256, made in this TPM, restricted to what the TPM itself made.
func template() []byte {
	return tpm2.Marshal(tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	})
}

func selection(pcrs []int) tpm2.TPMLPCRSelection {
	selected := make([]byte, pcrSelected)
	for _, n := range pcrs {
		selected[n/8] |= 1 << (n % 8)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: selected}}}
}

// attempts of a quote whose PCRs are extended while they are read.
const attempts = 5

// quote makes a quote over the PCRs and reads their values. Something may extend a PCR between the two: it is then done
// again.
func (d *Device) quote(k *key, data []byte, pcrs []int) (message, signature, values []byte, err error) {
	for range attempts {
		quoted, err := tpm2.Quote{
			SignHandle:     k.handle,
			QualifyingData: tpm2.TPM2BData{Buffer: data},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			PCRSelect:      selection(pcrs),
		}.Execute(d.tpm)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("quote: %w", err)
		}
		message, signature = quoted.Quoted.Bytes(), tpm2.Marshal(quoted.Signature)
		if values, err = d.pcrs(pcrs); err != nil {
			return nil, nil, nil, err
		}
		q, err := ParseQuoted(message, signature, values)
		if err != nil {
			return nil, nil, nil, err
		}
		if q.digest() == nil {
			return message, signature, values, nil
		}
	}
	return nil, nil, nil, errors.New("PCRs that change faster than they can be read")
}

// pcrs reads PCRs, of which a TPM answers some at a time.
func (d *Device) pcrs(want []int) ([]byte, error) {
	got := map[int][]byte{}
	left := slices.Clone(want)
	for len(left) > 0 {
		read, err := tpm2.PCRRead{PCRSelectionIn: selection(left)}.Execute(d.tpm)
		if err != nil {
			return nil, fmt.Errorf("PCRs: %w", err)
		}
		values := read.PCRValues.Digests
		for _, s := range read.PCRSelectionOut.PCRSelections {
			for n := range 8 * len(s.PCRSelect) {
				if s.PCRSelect[n/8]>>(n%8)&1 == 1 && len(values) > 0 {
					got[n], values = values[0].Buffer, values[1:]
				}
			}
		}
		before := len(left)
		if left = slices.DeleteFunc(left, func(n int) bool { return got[n] != nil }); len(left) == before {
			return nil, fmt.Errorf("the TPM has no SHA-256 PCR %d", left[0])
		}
	}
	var out []byte
	for _, n := range want {
		out = append(out, got[n]...)
	}
	return out, nil
}
