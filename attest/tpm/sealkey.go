package tpm

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/crypto/cryptobyte"

	"github.com/jurat-tls/jurat/attest"
)

const (
	checkSeal = "seal"

	rootSize = 32
	// maxSealed bounds each part of a hint. The largest has some 200 bytes.
	maxSealed = 1024
)

// resettable are PCRs that whoever may use the TPM sets back, and then to what he likes (PC Client platform profile, section 4.6).
var resettable = [...]int{16, 23}

// KeySource gives keys to seal with that a TPM holds, under its storage root key, for as long as some PCRs have the values that they
// have when the key is made. It has to be used by one at a time, as its Device.
//
// A hint is an object of the TPM, which anybody who may use the TPM can make as well, to have us open what he sealed. So the ticket
// by which a TPM knows its own objects again is part of the hint, for what it says of their making: the PCRs had these values then
// as well. Whatever has been run since those PCRs were extended last is one as far as a TPM can tell.
type KeySource struct {
	device *Device
	pcrs   []int
}

// NewKeySource makes a KeySource over the SHA-256 bank of the PCRs named, of which none may be 16 or 23: those can be reset.
func NewKeySource(device *Device, pcrs []int) (*KeySource, error) {
	pcrs, err := checkPCRs(pcrs)
	if err != nil {
		return nil, err
	}
	for _, n := range resettable {
		if slices.Contains(pcrs, n) {
			return nil, attest.Refuse(attest.CodeSelection, checkSeal, fmt.Sprintf("PCR %d, which can be reset", n), "others")
		}
	}
	return &KeySource{device, pcrs}, nil
}

// Root implements seal.Source.
func (k *KeySource) Root(hint []byte) (root, again []byte, err error) {
	values, err := k.device.pcrs(k.pcrs)
	if err != nil {
		return nil, nil, noKey(err)
	}
	made := sha256.Sum256(values)
	storage, err := k.device.storageKey()
	if err != nil {
		return nil, nil, noKey(err)
	}
	defer k.device.flush(storage.handle)
	if hint != nil {
		root, err = k.open(storage, made[:], hint)
		return root, hint, err
	}
	fresh := make([]byte, rootSize)
	_, _ = rand.Read(fresh) // does not fail
	if hint, err = k.make(storage, made[:], fresh); err == nil {
		// Something may have extended a PCR meanwhile: what could not be opened later is not sealed with.
		root, err = k.open(storage, made[:], hint)
	}
	if err != nil {
		return nil, nil, noKey(err)
	}
	return root, hint, nil
}

// storage is the storage root key.
type storage struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

// storageKey makes the key of the owner's hierarchy that holds what is sealed: the same one every time, until the TPM is cleared.
func (d *Device) storageKey() (*storage, error) {
	created, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(d.tpm)
	if err != nil {
		return nil, fmt.Errorf("storage root key: %w", err)
	}
	public, err := created.OutPublic.Contents()
	if err != nil {
		d.flush(created.ObjectHandle)
		return nil, fmt.Errorf("storage root key: %w", err)
	}
	return &storage{created.ObjectHandle, created.Name, *public}, nil
}

// flush unloads an object. Where that fails the TPM unloads it when the connection is closed.
func (d *Device) flush(handle tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: handle}.Execute(d.tpm)
}

// session options of ours: whoever listens on the bus between processor and TPM does not see the secret.
func (s *storage) hidden(option tpm2.AuthOption) []tpm2.AuthOption {
	return []tpm2.AuthOption{option, tpm2.Salted(s.handle, s.public)}
}

const (
	nonceSize = 16
	aesBits   = 128
)

// make has the TPM seal a root for the PCRs whose digest is made.
func (k *KeySource) make(parent *storage, made, root []byte) (hint []byte, err error) {
	// TPM2_PolicyPCR on a session that is new (TPM 2.0 Library, part 3).
	policy := sha256.Sum256(slices.Concat(make([]byte, sha256.Size), binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMCCPolicyPCR)), tpm2.Marshal(selection(k.pcrs)), made))
	created, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.handle, Name: parent.name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, parent.hidden(tpm2.AESEncryption(aesBits, tpm2.EncryptIn))...)},
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: root})}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:    tpm2.TPMAlgKeyedHash,
			NameAlg: tpm2.TPMAlgSHA256,
			// Nothing opens it but the policy.
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true},
			AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy[:]},
		}),
		CreationPCR: selection(k.pcrs),
	}.Execute(k.device.tpm)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	for _, part := range [][]byte{created.OutPublic.Bytes(), created.OutPrivate.Buffer, created.CreationData.Bytes(), created.CreationTicket.Digest.Buffer} {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(part) })
	}
	return b.Bytes()
}

// sealed is an object that holds a root: what the TPM needs to load it, what it says of its making, and its ticket for that.
type sealed struct{ public, private, creation, ticket []byte }

func parseSealed(hint []byte) (*sealed, error) {
	r := reader{rest: hint}
	o := &sealed{r.sized(maxSealed), r.sized(maxSealed), r.sized(maxSealed), r.sized(maxSealed)}
	if !r.whole() {
		return nil, attest.Refuse(attest.CodeSealBroken, checkSeal, fmt.Sprintf("a hint of %d bytes", len(hint)), "four parts of an object")
	}
	return o, nil
}

// open has the TPM give the root of an object that was made when the digest of the PCRs was the one of now.
func (k *KeySource) open(parent *storage, now, hint []byte) ([]byte, error) {
	o, err := parseSealed(hint)
	if err != nil {
		return nil, err
	}
	if want := slices.Concat(tpm2.Marshal(selection(k.pcrs)), tpm2.Marshal(tpm2.TPM2BDigest{Buffer: now})); !bytes.HasPrefix(o.creation, want) {
		return nil, attest.Refuse(attest.CodeSealForeign, checkSeal, "a key that was made under other PCRs", fmt.Sprintf("the values of now of %v", k.pcrs))
	}
	foreign := func(err error) error {
		return &attest.Error{Code: attest.CodeSealForeign, Check: checkSeal, Subject: "TPM", Err: err}
	}
	tpm := k.device.tpm
	loaded, err := tpm2.Load{
		ParentHandle: tpm2.NamedHandle{Handle: parent.handle, Name: parent.name},
		InPrivate:    tpm2.TPM2BPrivate{Buffer: o.private}, InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](o.public),
	}.Execute(tpm)
	if err != nil {
		return nil, foreign(err)
	}
	defer k.device.flush(loaded.ObjectHandle)
	hash := sha256.Sum256(o.creation)
	// Nothing is signed: what counts is that the TPM takes the ticket.
	if _, err := (tpm2.CertifyCreation{
		SignHandle:     tpm2.AuthHandle{Handle: tpm2.TPMRHNull, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:   tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name},
		CreationHash:   tpm2.TPM2BDigest{Buffer: hash[:]},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		CreationTicket: tpm2.TPMTTKCreation{Tag: tpm2.TPMSTCreation, Hierarchy: tpm2.TPMRHOwner, Digest: tpm2.TPM2BDigest{Buffer: o.ticket}},
	}).Execute(tpm); err != nil {
		return nil, foreign(err)
	}
	session := tpm2.Policy(tpm2.TPMAlgSHA256, nonceSize, tpm2.PolicyCallback(func(t transport.TPM, handle tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicyPCR{PolicySession: handle, Pcrs: selection(k.pcrs)}.Execute(t)
		return err
	}), parent.hidden(tpm2.AESEncryption(aesBits, tpm2.EncryptOut))...)
	opened, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: session}}.Execute(tpm)
	if err != nil {
		return nil, foreign(err)
	}
	return opened.OutData.Buffer, nil
}

func noKey(err error) error {
	return &attest.Error{Code: attest.CodeNoSealing, Check: checkSeal, Subject: "TPM", Err: err}
}
