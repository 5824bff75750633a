package sim

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/attest/tdx"
)

// TEEs of Intel's, as in a spec and in the paths of the PCS, and versions of the second.
const (
	teeSGX = string(sgx.Format)
	teeTDX = string(tdx.Format)

	td10 = "1.0"
	td15 = "1.5"
)

// dcapConfig describes a machine with SGX or TDX.
type dcapConfig struct {
	tee   string
	model *dcapModel
	fmspc [6]byte
	ca    string
	tcb   dcapTCB

	version     uint16 // of the quote
	td          string // of which TDX the body is; quotes of version 4 have only that of 1.0
	relaunch    bool   // the TDX module has been updated since the guest was launched; TDX 1.5 only
	debug       bool
	bare        bool // nothing but the root is stapled
	measurement []byte
	rtmr        [4][]byte // TDX only
	signer      []byte    // of the enclave, and the next two; SGX only
	prodID, svn uint16

	dcapStage
}

// dcapStage is what the vendor says of the machine, and may say otherwise later.
type dcapStage struct {
	status, moduleStatus, qeStatus string
	revoked, expired               string
	evaluation                     uint64
}

const upToDate = "UpToDate"

var (
	platformStatuses = []string{
		upToDate, "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded", "Revoked",
	}
	isvStatuses = []string{upToDate, "OutOfDate", "Revoked"}
	revocable   = []string{"none", "pck", "ca", "signer"}
	expirable   = []string{"none", "pck", "ca", "signer", "tcb-info", "qe-identity", "pck-crl", "root-crl"}
)

func dcapSyntax(tee string) string {
	var generations []string
	for _, m := range dcapModels {
		if m.tdx || tee == teeSGX {
			generations = append(generations, m.generation)
		}
	}
	own := "signer=HEX, prod-id=N, svn=N, "
	if tee == teeTDX {
		own = "version=4|5, td=1.0|1.5, relaunch=on|off, rtmr0=HEX to rtmr3, module-status=STATUS, "
	}
	return tee + "[:" + strings.Join(generations, "|") + "] with debug=on|off, staple=on|off, measurement=HEX, fmspc=HEX, ca=platform|processor, " +
		"tcb.pce=N (and tcb.qe, tcb.sgx1, tcb.tdx1 ...), " + own + "qe-status=STATUS, evaluation=N, status=" + strings.Join(platformStatuses, "|") +
		", revoked=" + strings.Join(revocable, "|") + ", expired=" + strings.Join(expirable, "|")
}

func newDCAPConfig(s *Spec) (*dcapConfig, error) {
	c := &dcapConfig{
		tee: s.TEE, tcb: dcapCurrent, version: 3, prodID: 1, svn: 1,
		dcapStage: dcapStage{upToDate, upToDate, upToDate, "none", "none", 20},
	}
	for _, m := range dcapModels {
		if (s.Product == "" || s.Product == m.generation) && (m.tdx || c.tee == teeSGX) {
			c.model, c.fmspc, c.ca = m, m.fmspc, m.ca
			break
		}
	}
	if c.model == nil {
		return nil, usage("generation "+attest.Quote(s.Product), "sim:"+dcapSyntax(c.tee))
	}
	if c.tee == teeSGX {
		c.measurement, c.signer = sum256("jurat simulated workload"), sum256("jurat simulated signer")
	} else {
		c.version = 4
		c.measurement = DefaultMeasurement()
		for i, measured := range []string{"firmware", "loader", "kernel"} {
			sum := sha512.Sum384([]byte("jurat simulated " + measured))
			c.rtmr[i] = sum[:]
		}
		c.rtmr[3] = make([]byte, 48)
	}
	for _, o := range s.options {
		if err := c.set(o.key, o.value); err != nil {
			return nil, err
		}
	}
	switch {
	case c.td == "" && c.version == 5:
		c.td = td15
	case c.td == td15 && c.version == 4:
		return nil, usage("td=1.5 in version 4", "version=5")
	}
	if c.relaunch && c.td != td15 {
		return nil, usage("relaunch=on", "version=5 and td=1.5, whose quotes tell")
	}
	return c, nil
}

func sum256(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

func (c *dcapConfig) set(key, value string) error {
	var want string
	var err error
	switch key {
	case "debug":
		want = "on or off"
		c.debug, err = onOff(value)
	case "staple":
		want = "on or off"
		c.bare, err = onOff(value)
		c.bare = !c.bare
	case "measurement":
		want, err = hexadecimal(value, c.measurement)
	case "fmspc":
		want, err = hexadecimal(value, c.fmspc[:])
	case "ca":
		want, err = oneOf(value, &c.ca, []string{caPlatform, caProcessor})
	default:
		component, isTCB := strings.CutPrefix(key, "tcb.")
		switch {
		case isTCB:
			want, err = c.setTCB(component, value)
		case c.tee == teeSGX:
			want, err = c.setSGX(key, value)
		default:
			want, err = c.setTDX(key, value)
		}
		if want == "" {
			want, err = c.dcapStage.set(c.tee, key, value)
		}
	}
	if want == "" {
		return usage("unknown key "+attest.Quote(key), "sim:"+dcapSyntax(c.tee))
	}
	if err != nil {
		return usage(attest.Quote(key+"="+value), want)
	}
	return nil
}

func (c *dcapConfig) setTCB(component, value string) (want string, err error) {
	size, limit := 8, "255"
	if component == "pce" || component == "qe" {
		size, limit = 16, "65535"
	}
	v, err := strconv.ParseUint(value, 10, size)
	if err == nil && (c.tee == teeSGX && strings.HasPrefix(component, "tdx") || !c.tcb.set(component, v)) {
		return "", nil
	}
	return "a number from 0 to " + limit, err
}

func (c *dcapConfig) setSGX(key, value string) (want string, err error) {
	switch key {
	case "signer":
		return hexadecimal(value, c.signer)
	case "prod-id":
		return number(value, &c.prodID)
	case "svn":
		return number(value, &c.svn)
	}
	return "", nil
}

func (c *dcapConfig) setTDX(key, value string) (want string, err error) {
	switch key {
	case "version":
		_, err = number(value, &c.version)
		if c.version != 4 && c.version != 5 {
			err = strconv.ErrRange
		}
		return "4 or 5", err
	case "td":
		return oneOf(value, &c.td, []string{td10, td15})
	case "relaunch":
		c.relaunch, err = onOff(value)
		return "on or off", err
	}
	for i := range c.rtmr {
		if key == fmt.Sprintf("rtmr%d", i) {
			return hexadecimal(value, c.rtmr[i])
		}
	}
	return "", nil
}

func (s *dcapStage) set(tee, key, value string) (want string, err error) {
	switch key {
	case "module-status":
		if tee == teeTDX {
			return oneOf(value, &s.moduleStatus, isvStatuses)
		}
	case "status":
		return oneOf(value, &s.status, platformStatuses)
	case "qe-status":
		return oneOf(value, &s.qeStatus, isvStatuses)
	case "revoked":
		return oneOf(value, &s.revoked, revocable)
	case "expired":
		return oneOf(value, &s.expired, expirable)
	case "evaluation":
		s.evaluation, err = strconv.ParseUint(value, 10, 32)
		return "a number", err
	}
	return "", nil
}

// hexadecimal fills into, all of it.
func hexadecimal(value string, into []byte) (want string, err error) {
	raw, err := hex.DecodeString(value)
	if err == nil && len(raw) != len(into) {
		err = strconv.ErrRange
	}
	copy(into, raw)
	return fmt.Sprintf("%d hex digits", 2*len(into)), err
}

func oneOf(value string, into *string, known []string) (want string, err error) {
	if !slices.Contains(known, value) {
		err = strconv.ErrSyntax
	}
	*into = value
	return "one of " + strings.Join(known, ", "), err
}

func number(value string, into *uint16) (want string, err error) {
	v, err := strconv.ParseUint(value, 10, 16)
	*into = uint16(v)
	return "a number from 0 to 65535", err
}
