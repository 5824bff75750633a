package snp_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/attest/tsm"
	"github.com/jurat-tls/jurat/test/emulate"
)

// collecting tells this test binary to collect a report, as a guest's program does.
const collecting = "JURAT_TEST_COLLECT"

func TestMain(m *testing.M) {
	emulate.Main()
	if hint, ok := os.LookupEnv(sealing); ok {
		os.Exit(printKey(hint))
	}
	if os.Getenv(collecting) != "" {
		ev, err := snp.CollectFromDevice(attest.ReportData{7, 63: 8})
		if err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		fmt.Printf("%x %d", ev.Raw, len(ev.Endorsements))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestDeviceOfTheKernel: the program's system calls, answered as Linux's driver does (include/uapi/linux/sev-guest.h). The
// host has certificates, or not.
func TestDeviceOfTheKernel(t *testing.T) {
	t.Parallel()
	good := forge{report: func(r []byte) { r[0x50], r[0x8f] = 7, 8; clear(r[0x51:0x8f]) }}.make(t)
	table := snp.EncodeTable(good.evidence.Endorsements[0].Raw, good.evidence.Endorsements[1].Raw)
	for name, host := range map[string]struct {
		table  []byte
		broken bool
		want   int // endorsements
	}{"with certificates": {table, false, 2}, "without": {nil, false, 0}, "broken": {nil, true, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			le := binary.LittleEndian
			var seen []uint32
			handler := func(c emulate.Call) unix.Errno {
				arg := make([]byte, 32)
				request := make([]byte, 112)
				if c.Read(c.Arg, arg) != nil || arg[0] != 1 || c.Read(le.Uint64(arg[8:]), request[:96]) != nil || request[0] != 7 || request[63] != 8 || !zeros(request[64:96]) {
					return unix.EINVAL
				}
				seen = append(seen, c.Request)
				switch {
				case host.broken:
					le.PutUint32(arg[24:], 0x13)
					_ = c.Write(c.Arg, arg)
					return unix.EIO
				case c.Request == 0xc0205302 && host.table != nil:
					if c.Read(le.Uint64(arg[8:]), request) != nil || int(le.Uint32(request[104:])) < len(host.table) || c.Write(le.Uint64(request[96:]), host.table) != nil {
						return unix.EFAULT
					}
				case c.Request == 0xc0205300:
				default:
					return unix.ENOTTY
				}
				answer := make([]byte, 4000)
				le.PutUint32(answer[4:], snp.ReportSize)
				copy(answer[32:], good.evidence.Raw)
				if c.Write(le.Uint64(arg[16:]), answer) != nil {
					return unix.EFAULT
				}
				return 0
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			cmd.Env = append(os.Environ(), collecting+"=1")
			if err := emulate.Start(cmd, map[string]emulate.Handler{"/dev/sev-guest": handler}); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if host.broken {
				if err == nil || !strings.Contains(out.String(), "firmware error 0x13, host error 0x0") {
					t.Errorf("%v: %s", err, &out)
				}
				return
			}
			if want := fmt.Sprintf("%s %d", hex.EncodeToString(good.evidence.Raw), host.want); err != nil || out.String() != want {
				t.Errorf("%v: got %s, commands %x", err, &out, seen)
			}
		})
	}
}

func zeros(b []byte) bool { return bytes.Equal(b, make([]byte, len(b))) }

func TestNoDevice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := snp.OpenDevice(filepath.Join(dir, "sev-guest")); !errors.Is(err, tsm.ErrAbsent) {
		t.Error(err)
	}
	if err := snp.OpenDevice(dir); !errors.Is(err, unix.EISDIR) || errors.Is(err, tsm.ErrAbsent) {
		t.Error(err)
	}
	if err := snp.OpenDevice("/dev/null"); err != nil {
		t.Error(err)
	}
	if err := snp.RequestDevice(filepath.Join(dir, "sev-guest")); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	if err := snp.RequestDevice("/dev/null"); !errors.Is(err, unix.ENOTTY) {
		t.Error(err)
	}
}
