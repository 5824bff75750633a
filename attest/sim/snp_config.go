package sim

import (
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
)

// Config describes a simulated SEV-SNP platform. The zero value is a Genoa of memory only.
type Config struct {
	// Dir keeps the root and the chip, shared by every platform with the same Dir. Empty: they live in memory only.
	Dir string
	// Product is "milan", "genoa", "siena" or "turin"; empty: genoa.
	Product string
	// TCB sets components of the reported TCB; others keep a default.
	TCB attest.TCB
	// Debug is the guest policy's debug bit.
	Debug bool
	// Measurement is the launch measurement, 48 bytes; empty: DefaultMeasurement.
	Measurement []byte
	// HostData is what the host attached at launch, 32 bytes; empty: zero.
	HostData []byte
	// QuoteTime is how long one report takes.
	QuoteTime time.Duration
	// Serial makes the platform work on one report at a time, as firmware does.
	Serial bool
	// ReportVersion is 2, 3 or 5; zero: 5.
	ReportVersion int
	// CSP makes a VLEK of this cloud provider sign instead of the chip's VCEK, and masks the chip id.
	CSP string
	// Now is the clock that dates certificates and lists; nil: time.Now.
	Now func() time.Time
}

// DefaultMeasurement is what a simulated guest measures when nothing else is said.
func DefaultMeasurement() []byte {
	sum := sha512.Sum384([]byte("jurat simulated workload"))
	return sum[:]
}

// model is what the simulation knows of a product.
type model struct {
	name, generation, line    string
	family, number, stepping  uint8
	productName               string
	structVersion, hwid       int
	defaults                  attest.TCB
	layout                    map[string]int // offset of each component in TCB_VERSION
	spl                       []spl          // the certificate's extensions, in AMD's order
	firmwareMinor, firmwareNo uint8
}

// spl ties one extension 1.3.6.1.4.1.3704.1.3.arc to a byte of TCB_VERSION.
type spl struct{ arc, offset int }

var (
	layout0 = map[string]int{"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
	layout1 = map[string]int{"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
	spl0    = []spl{{1, 0}, {2, 1}, {4, 2}, {5, 3}, {6, 4}, {7, 5}, {3, 6}, {8, 7}}
	spl1    = []spl{{9, 0}, {1, 1}, {2, 2}, {3, 3}, {5, 4}, {6, 5}, {7, 6}, {8, 7}}

	models = []*model{
		{"milan", "milan", "Milan", 0x19, 0x01, 1, "Milan-B1", 0, 64, attest.TCB{"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}, layout0, spl0, 55, 29},
		{"genoa", "genoa", "Genoa", 0x19, 0x11, 1, "Genoa-B1", 0, 64, attest.TCB{"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84}, layout0, spl0, 55, 39},
		{"siena", "genoa", "Genoa", 0x19, 0xa0, 2, "Genoa", 0, 64, attest.TCB{"bootloader": 10, "tee": 0, "snp": 23, "microcode": 25}, layout0, spl0, 55, 39},
		{"turin", "turin", "Turin", 0x1a, 0x02, 1, "Turin", 1, 8, attest.TCB{"fmc": 1, "bootloader": 1, "tee": 1, "snp": 4, "microcode": 72}, layout1, spl1, 55, 61},
	}
)

func modelNamed(name string) *model {
	for _, m := range models {
		if m.name == name {
			return m
		}
	}
	return nil
}

func (m *model) encode(tcb attest.TCB) (raw [8]byte) {
	for component, at := range m.layout {
		raw[at] = byte(tcb[component])
	}
	return raw
}

// complete fills in defaults and checks what a caller may have got wrong.
func (c Config) complete() (Config, *model, error) {
	if c.Product == "" {
		c.Product = "genoa"
	}
	m := modelNamed(c.Product)
	if m == nil {
		return c, nil, usage("product "+attest.Quote(c.Product), "milan, genoa, siena or turin")
	}
	tcb := maps.Clone(m.defaults)
	for component, v := range c.TCB {
		if _, ok := m.layout[component]; !ok {
			return c, nil, usage("TCB component "+attest.Quote(component), "one of "+strings.Join(slices.Sorted(maps.Keys(m.layout)), ", ")+" on "+m.name)
		}
		if v > 255 {
			return c, nil, usage(fmt.Sprintf("tcb.%s=%d", component, v), "0 to 255")
		}
		tcb[component] = v
	}
	c.TCB = tcb
	if len(c.Measurement) == 0 {
		c.Measurement = DefaultMeasurement()
	}
	if len(c.Measurement) != 48 {
		return c, nil, usage(fmt.Sprintf("a measurement of %d bytes", len(c.Measurement)), "48 bytes (96 hex digits)")
	}
	if len(c.HostData) != 0 && len(c.HostData) != 32 {
		return c, nil, usage(fmt.Sprintf("host data of %d bytes", len(c.HostData)), "32 bytes (64 hex digits)")
	}
	if c.ReportVersion == 0 {
		c.ReportVersion = 5
	}
	if !slices.Contains([]int{2, 3, 5}, c.ReportVersion) {
		return c, nil, usage(fmt.Sprintf("report version %d", c.ReportVersion), "2, 3 or 5")
	}
	if c.ReportVersion == 2 && m.structVersion != 0 {
		return c, nil, usage("report version 2 on "+m.name, "3 or 5")
	}
	host := c.host()
	err := host.complete()
	c.Now = host.Now
	return c, m, err
}

func (c *Config) host() *Host {
	return &Host{Dir: c.Dir, QuoteTime: c.QuoteTime, Serial: c.Serial, Now: c.Now}
}

const snpSyntax = "snp[:milan|genoa|siena|turin] with product, version=2|3|5, debug=on|off, measurement=HEX, host-data=HEX, csp=NAME, " +
	"tcb.snp=N (and tcb.bootloader, tcb.tee, tcb.microcode, tcb.fmc)"

// ParseConfig reads the command line's description of a simulated SEV-SNP platform; see Syntax.
func ParseConfig(s string) (Config, error) {
	spec, err := ParseSpec(s)
	if err != nil {
		return Config{}, err
	}
	if spec.TEE != string(snp.Format) {
		return Config{}, usage(attest.Quote(s), "sim:"+snpSyntax)
	}
	c, err := snpConfig(spec)
	if err != nil {
		return c, err
	}
	_, _, err = c.complete()
	return c, err
}

func snpConfig(s *Spec) (Config, error) {
	c := Config{Product: s.Product, Dir: s.Dir, QuoteTime: s.QuoteTime, Serial: s.Serial, Now: s.Now}
	for _, o := range s.options {
		if err := c.set(o.key, o.value); err != nil {
			return c, err
		}
	}
	if s.Product != "" && c.Product != s.Product {
		return c, usage("two products: "+attest.Quote(s.Product)+" and "+attest.Quote(c.Product), "one")
	}
	return c, nil
}

func (c *Config) set(key, value string) (err error) {
	component, isTCB := strings.CutPrefix(key, "tcb.")
	want := ""
	switch {
	case isTCB:
		var v uint64
		v, err = strconv.ParseUint(value, 10, 8)
		want = "a number from 0 to 255"
		if c.TCB == nil {
			c.TCB = attest.TCB{}
		}
		c.TCB[component] = v
	case key == "product":
		c.Product = value
	case key == "csp":
		c.CSP = value
	case key == "debug":
		c.Debug, err = onOff(value)
		want = "on or off"
	case key == "version":
		c.ReportVersion, err = strconv.Atoi(value)
		want = "2, 3 or 5"
		if c.ReportVersion == 0 {
			err = strconv.ErrRange
		}
	case key == "measurement":
		c.Measurement, err = hex.DecodeString(value)
		want = "96 hex digits"
	case key == "host-data":
		c.HostData, err = hex.DecodeString(value)
		want = "64 hex digits"
	default:
		return usage("unknown key "+attest.Quote(key), "sim:"+snpSyntax)
	}
	if err != nil {
		return usage(attest.Quote(key+"="+value), want)
	}
	return nil
}
