package sim

import "fmt"

// dcapModel is what the simulation knows of one of Intel's processors.
type dcapModel struct {
	generation string
	fmspc      [6]byte
	ca         string // of its PCK certificates, as the PCS names it
	tdx        bool
}

// The first is the one that a spec without a generation means.
var dcapModels = []*dcapModel{
	{"emerald-rapids", [6]byte{0xb0, 0xc0, 0x6f}, caPlatform, true},
	{"sapphire-rapids", [6]byte{0x00, 0x80, 0x6f, 0x05}, caPlatform, true},
	{"granite-rapids", [6]byte{0x00, 0xa0, 0x6d, 0x08}, caPlatform, true},
	{"ice-lake", [6]byte{0x00, 0x60, 0x6a}, caPlatform, false},
	{"coffee-lake", [6]byte{0x00, 0x90, 0x6e, 0xd5}, caProcessor, false},
}

// The two authorities that issue PCK certificates: one for platforms that may have several packages, one for others.
const (
	caPlatform  = "platform"
	caProcessor = "processor"
)

// dcapTCB is a set of security version numbers.
type dcapTCB struct {
	sgx, tdx [16]byte
	pce, qe  uint16
}

// What platforms are at unless a spec says otherwise, and what the vendor lists beside it: the level of the recovery that
// comes next, and one that has long been out of date.
var (
	dcapCurrent  = dcapTCB{[16]byte{8, 8, 2, 2, 4, 1, 0, 5}, [16]byte{6, 1, 3}, 13, 8}
	dcapNext     = dcapTCB{[16]byte{9, 9, 2, 2, 4, 1, 0, 5}, [16]byte{7, 1, 4}, 13, 9}
	dcapPrevious = dcapTCB{[16]byte{6, 6, 2, 2, 3, 1, 0, 4}, [16]byte{4, 1, 2}, 11, 6}
)

// set sets a component by the name that claims give it: pce, qe, sgx1 to sgx16, tdx1 to tdx16.
func (t *dcapTCB) set(component string, v uint64) bool {
	switch component {
	case "pce":
		t.pce = uint16(v)
		return true
	case "qe":
		t.qe = uint16(v)
		return true
	}
	for i := range t.sgx {
		switch component {
		case fmt.Sprintf("sgx%d", i+1):
			t.sgx[i] = byte(v)
			return true
		case fmt.Sprintf("tdx%d", i+1):
			t.tdx[i] = byte(v)
			return true
		}
	}
	return false
}
