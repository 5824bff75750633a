package cca

import (
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Platform is the platform's token (RMM A7.2.3.2).
type Platform struct {
	Profile          string          `json:"profile"`
	Challenge        attest.HexBytes `json:"challenge"` // hash of the key that signs realm tokens
	ImplementationID attest.HexBytes `json:"implementation_id"`
	InstanceID       attest.HexBytes `json:"instance_id"`
	Config           attest.HexBytes `json:"config"`
	Lifecycle        uint16          `json:"lifecycle"`
	HashAlgorithm    string          `json:"hash_algorithm"`
	Components       []Component     `json:"sw_components"`

	ignored []string
}

// Component is one piece of the platform's firmware.
type Component struct {
	Type          string          `json:"type,omitempty"`
	Version       string          `json:"version,omitempty"`
	Measurement   attest.HexBytes `json:"measurement"`
	Signer        attest.HexBytes `json:"signer"`
	HashAlgorithm string          `json:"hash_algorithm,omitempty"`
}

// Labels of the platform's claims and of a component's.
const (
	labelClientID       = 2394
	labelLifecycle      = 2395
	labelImplementation = 2396
	labelComponents     = 2399
	labelService        = 2400
	labelConfig         = 2401
	labelHash           = 2402

	componentType        = 1
	componentMeasurement = 2
	componentVersion     = 4
	componentSigner      = 5
	componentHash        = 6
)

const (
	maxComponents = 32
	maxConfig     = 1024
	sizeUEID      = 33
	ueidRandom    = 1 // first byte of a UEID of random bytes (RFC 9711 §4.2.1)
)

func (p *Platform) parse(payload []byte) (err error) {
	c, err := parseClaims(payload, "platform claims")
	if err != nil {
		return err
	}
	if p.Profile, err = c.profile(); err != nil {
		return err
	}
	if p.Challenge, err = c.bytes(labelChallenge, "platform challenge", hashSizes...); err != nil {
		return err
	}
	if p.ImplementationID, err = c.bytes(labelImplementation, "implementation id", 32); err != nil {
		return err
	}
	if p.InstanceID, err = c.bytes(labelUEID, "instance id", sizeUEID); err != nil {
		return err
	}
	if p.InstanceID[0] != ueidRandom {
		return malformed(fmt.Sprintf("instance id of type %d", p.InstanceID[0]), nil)
	}
	config, ok := c.Get(labelConfig).Bytes()
	if !ok || len(config) > maxConfig {
		return malformed("platform configuration", nil)
	}
	p.Config = config
	lifecycle, ok := c.Get(labelLifecycle).Uint()
	if !ok || lifecycle > 0xffff {
		return malformed("lifecycle", nil)
	}
	p.Lifecycle = uint16(lifecycle)
	if p.HashAlgorithm, err = c.text(labelHash, "platform hash algorithm"); err != nil {
		return err
	}
	if p.Profile == profilePlatform2024 {
		// Number 1 is the client that speaks for the realm management monitor.
		if client, _ := c.Get(labelClientID).Int(); client != 1 {
			return malformed("client id", nil)
		}
	}
	p.ignored = c.unknown(labelProfile, labelChallenge, labelImplementation, labelUEID, labelConfig, labelLifecycle, labelHash, labelComponents, labelService, labelClientID)
	return p.parseComponents(c)
}

func (p *Platform) parseComponents(c claims) (err error) {
	list, _ := c.Get(labelComponents).Array()
	if len(list) == 0 || len(list) > maxComponents {
		return malformed(fmt.Sprintf("%d software components", len(list)), nil)
	}
	for _, entry := range list {
		e, one := claims{entry}, Component{}
		if one.Measurement, err = e.bytes(componentMeasurement, "measurement of a software component", hashSizes...); err != nil {
			return err
		}
		if one.Signer, err = e.bytes(componentSigner, "signer of a software component", hashSizes...); err != nil {
			return err
		}
		for label, to := range map[int64]*string{componentType: &one.Type, componentVersion: &one.Version, componentHash: &one.HashAlgorithm} {
			if !e.Get(label).Present() {
				continue
			}
			if *to, err = e.text(label, "text of a software component"); err != nil {
				return err
			}
		}
		p.Components = append(p.Components, one)
	}
	return nil
}

// checkLifecycle refuses every state but secured (RMM A7.2.3.2.7), and tells the two in which debugging is on.
func (p *Platform) checkLifecycle() (debug attest.Flag, err error) {
	switch state := p.Lifecycle >> 8; state {
	case 0x30:
		return attest.Off, nil
	case 0x40, 0x50: // debugging of other parts, and of the platform's own, from which it can recover
		return attest.On, nil
	default:
		return attest.Absent, attest.Refuse(attest.CodeLifecycle, checkLifecycle, fmt.Sprintf("state %#04x", p.Lifecycle), "secured (0x3000 to 0x30ff)")
	}
}
