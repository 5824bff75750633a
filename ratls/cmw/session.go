package cmw

import (
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// Media types of the CMW records that the session tier exchanges.
const (
	SessionMediaType   = "application/vnd.jurat.session+cbor"
	ReconnectMediaType = "application/vnd.jurat.reconnect+cbor"
)

// Session is evidence that one or more TLS sessions share: the hardware signed the root of a tree that has a leaf for each.
type Session struct {
	Evidence *attest.Evidence
	Config   [32]byte      // digest of the measured configuration
	Size     uint64        // leaves in the tree
	Index    uint64        // of this session's leaf
	Proof    []merkle.Hash // inclusion proof
}

// Reconnect proves, in place of evidence, that the sender still holds a secret of an earlier attested session.
type Reconnect struct {
	ID  [16]byte // names the secret
	MAC [32]byte
}

type sessionPayload struct {
	Format       string        `cbor:"1,keyasint"`
	Raw          []byte        `cbor:"2,keyasint"`
	Endorsements []endorsement `cbor:"3,keyasint"`
	Config       []byte        `cbor:"4,keyasint"`
	Size         uint64        `cbor:"5,keyasint"`
	Index        uint64        `cbor:"6,keyasint"`
	Proof        []byte        `cbor:"7,keyasint"` // hashes, one after the other
}

type reconnectPayload struct {
	ID  []byte `cbor:"1,keyasint"`
	MAC []byte `cbor:"2,keyasint"`
}

// MarshalSession encodes evidence for a session as a CMW record.
func MarshalSession(s *Session) ([]byte, error) {
	p := sessionPayload{
		Format: string(s.Evidence.Format), Raw: s.Evidence.Raw, Endorsements: pack(s.Evidence.Endorsements),
		Config: s.Config[:], Size: s.Size, Index: s.Index,
	}
	for _, h := range s.Proof {
		p.Proof = append(p.Proof, h[:]...)
	}
	return wrap(SessionMediaType, p)
}

// MarshalReconnect encodes a proof without evidence as a CMW record.
func MarshalReconnect(r *Reconnect) ([]byte, error) {
	return wrap(ReconnectMediaType, reconnectPayload{ID: r.ID[:], MAC: r.MAC[:]})
}

func wrap(mediaType string, payload any) ([]byte, error) {
	value, err := strictcbor.Marshal(payload)
	if err != nil {
		return nil, err
	}
	return strictcbor.Marshal(record{Type: mediaType, Value: value, Ind: indEvidence})
}

// UnmarshalSession decodes a CMW record of either kind: one of its answers is not nil. Its errors are *attest.Error.
func UnmarshalSession(raw []byte) (*Session, *Reconnect, error) {
	if len(raw) > MaxExtension {
		return nil, nil, &attest.Error{Code: attest.CodeOversized, Check: "evidence", Got: fmt.Sprintf("%d bytes", len(raw)), Want: fmt.Sprintf("at most %d", MaxExtension)}
	}
	var rec record
	if err := strictcbor.Unmarshal(raw, &rec); err != nil {
		return nil, nil, malformed("CMW record", err)
	}
	if rec.Ind != indEvidence {
		return nil, nil, malformed("a CMW record that is not evidence", nil)
	}
	switch rec.Type {
	case SessionMediaType:
		s, err := decodeSession(rec.Value)
		return s, nil, err
	case ReconnectMediaType:
		var p reconnectPayload
		if err := strictcbor.Unmarshal(rec.Value, &p); err != nil {
			return nil, nil, malformed("CMW value", err)
		}
		if len(p.ID) != 16 || len(p.MAC) != 32 {
			return nil, nil, malformed("an id or a MAC of another length", nil)
		}
		return nil, &Reconnect{ID: [16]byte(p.ID), MAC: [32]byte(p.MAC)}, nil
	}
	return nil, nil, &attest.Error{Code: attest.CodeUnknownFormat, Check: "evidence", Got: fmt.Sprintf("%.60q", rec.Type), Want: SessionMediaType}
}

func decodeSession(raw []byte) (*Session, error) {
	var p sessionPayload
	if err := strictcbor.Unmarshal(raw, &p); err != nil {
		return nil, malformed("CMW value", err)
	}
	const size = len(merkle.Hash{})
	if len(p.Config) != 32 || len(p.Proof)%size != 0 || len(p.Proof) > merkle.MaxProof*size {
		return nil, malformed("a configuration digest or a proof of another length", nil)
	}
	s := &Session{
		Evidence: &attest.Evidence{Format: attest.Format(p.Format), Raw: p.Raw, Endorsements: unpack(p.Endorsements)},
		Config:   [32]byte(p.Config), Size: p.Size, Index: p.Index,
	}
	for rest := p.Proof; len(rest) > 0; rest = rest[size:] {
		s.Proof = append(s.Proof, merkle.Hash(rest[:size]))
	}
	return s, nil
}
