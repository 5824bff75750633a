package snp

import (
	"encoding/json"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// TCBVersion is the 8-byte TCB_VERSION as it stands in a report. What its bytes mean depends on the generation: only a
// generation decodes it, into a type of its own, so that the level of one can't be read as that of another.
type TCBVersion [8]byte

// MarshalJSON writes hex.
func (t TCBVersion) MarshalJSON() ([]byte, error) { return json.Marshal(attest.HexBytes(t[:])) }

// tcb is a decoded TCB_VERSION.
type tcb interface {
	// components lists the security version numbers.
	components() []component
	// query names them as the KDS wants to be asked (57230 §4.1).
	query() string
}

// component is one security version number. arc is the last arc of the extension 1.3.6.1.4.1.3704.1.3.x that endorses it
// (57230 table 8).
type component struct {
	name  string
	arc   int
	value uint8
}

// tcb0 is the level of Milan and Genoa (56860 table 3).
type tcb0 struct{ bootloader, tee, snp, microcode uint8 }

func decodeTCB0(raw TCBVersion) (tcb0, error) {
	t := tcb0{bootloader: raw[0], tee: raw[1], snp: raw[6], microcode: raw[7]}
	if !attest.AllZero(raw[2:6]) {
		return tcb0{}, reservedTCB(raw)
	}
	return t, nil
}

func (t tcb0) components() []component {
	return []component{{"bootloader", 1, t.bootloader}, {"tee", 2, t.tee}, {"snp", 3, t.snp}, {"microcode", 8, t.microcode}}
}

func (t tcb0) query() string {
	return fmt.Sprintf("blSPL=%02d&teeSPL=%02d&snpSPL=%02d&ucodeSPL=%02d", t.bootloader, t.tee, t.snp, t.microcode)
}

// tcb1 is the level of Turin (56860 table 4).
type tcb1 struct{ fmc, bootloader, tee, snp, microcode uint8 }

func decodeTCB1(raw TCBVersion) (tcb1, error) {
	t := tcb1{fmc: raw[0], bootloader: raw[1], tee: raw[2], snp: raw[3], microcode: raw[7]}
	if !attest.AllZero(raw[4:7]) {
		return tcb1{}, reservedTCB(raw)
	}
	return t, nil
}

func (t tcb1) components() []component {
	return []component{{"fmc", 9, t.fmc}, {"bootloader", 1, t.bootloader}, {"tee", 2, t.tee}, {"snp", 3, t.snp}, {"microcode", 8, t.microcode}}
}

func (t tcb1) query() string {
	return fmt.Sprintf("fmcSPL=%02d&blSPL=%02d&teeSPL=%02d&snpSPL=%02d&ucodeSPL=%02d", t.fmc, t.bootloader, t.tee, t.snp, t.microcode)
}

func reservedTCB(raw TCBVersion) error {
	return reserved(fmt.Sprintf("reserved byte of TCB %x", raw[:]))
}

// levels are the four levels that a report names.
type levels struct{ current, reported, committed, launch tcb }

// claimsOf turns a level into claims.
func claimsOf(t tcb) attest.TCB {
	all := attest.TCB{}
	for _, c := range t.components() {
		all[c.name] = uint64(c.value)
	}
	return all
}
