//go:build linux

package tsmfs_test

import (
	"encoding/binary"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/test/emulate"
	"github.com/jurat-tls/jurat/test/emulate/tsmfs"
)

// sevGuest answers as Linux's /dev/sev-guest does (include/uapi/linux/sev-guest.h). Without a table the host knows no
// extended requests.
func (m machine) sevGuest(table []byte) emulate.Handler {
	const getReport, getExtended = 0xc0205300, 0xc0205302
	le := binary.LittleEndian
	return func(c emulate.Call) unix.Errno {
		arg := make([]byte, 32)
		if c.Read(c.Arg, arg) != nil || arg[0] != 1 {
			return unix.EINVAL
		}
		request, response := le.Uint64(arg[8:]), le.Uint64(arg[16:])
		user := make([]byte, 96)
		if c.Read(request, user) != nil {
			return unix.EFAULT
		}
		switch c.Request {
		case getReport:
		case getExtended:
			if table == nil {
				return unix.ENOTTY
			}
			where := make([]byte, 12)
			if c.Read(request+96, where) != nil {
				return unix.EFAULT
			}
			size := le.Uint32(where[8:])
			needed := uint32(len(table)+4095) &^ 4095
			if size < needed {
				le.PutUint32(arg[28:], 1) // SNP_GUEST_VMM_ERR_INVALID_LEN
				_, _ = c.Write(request+104, le.AppendUint32(nil, needed)), c.Write(c.Arg, arg)
				return unix.EIO
			}
			if c.Write(le.Uint64(where), append(table[:len(table):len(table)], make([]byte, int(size)-len(table))...)) != nil {
				return unix.EFAULT
			}
		default:
			return unix.ENOTTY
		}
		report, err := m.report(user[:64])
		if err != nil {
			return unix.EIO
		}
		answer := make([]byte, 4000)
		le.PutUint32(answer[4:], snp.ReportSize)
		copy(answer[32:], report)
		if c.Write(response, answer) != nil {
			return unix.EFAULT
		}
		return 0
	}
}

// TestDevice: the character device, for kernels without configfs-tsm. The first table that the program has room for is too
// small.
func TestDevice(t *testing.T) {
	mounted(t, tsmfs.Platform{}, tsmfs.Faults{}) // no driver registered itself there
	m := newMachine(t)
	large := append(m.table[:len(m.table):len(m.table)], make([]byte, 20<<10)...)
	proves(t, m, func(cmd *exec.Cmd) error {
		return emulate.Start(cmd, map[string]emulate.Handler{"/dev/sev-guest": m.sevGuest(large)})
	}, snp.SourceDevice)
}

// TestDeviceWithoutTable: a host that supplies no certificates still has its guests attest.
func TestDeviceWithoutTable(t *testing.T) {
	mounted(t, tsmfs.Platform{}, tsmfs.Faults{})
	m := newMachine(t)
	start := func(cmd *exec.Cmd) error {
		return emulate.Start(cmd, map[string]emulate.Handler{"/dev/sev-guest": m.sevGuest(nil)})
	}
	out, _ := jurat(t, start, 0, "attest", "--offline", "--raw", "--report-data", "07"+strings.Repeat("00", 63))
	if r, err := snp.Parse([]byte(out)); err != nil || r.ReportData[0] != 7 {
		t.Error(err)
	}
}
