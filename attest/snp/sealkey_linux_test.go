package snp_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/test/emulate"
)

// sealing tells this test binary to ask for a key, as a guest's program does: for the hint in hexadecimal, or none.
const sealing = "JURAT_TEST_SEALING"

func printKey(hint string) int {
	var given []byte
	if hint != "none" {
		given, _ = hex.DecodeString(hint)
	}
	root, again, err := snp.KeySource{}.Root(given)
	if err != nil {
		fmt.Print(attest.CodeOf(err))
		return 0
	}
	fmt.Printf("%x %x", root, again)
	return 0
}

// TestKeyOfTheKernel: the program's system calls, answered as Linux's driver does.
func TestKeyOfTheKernel(t *testing.T) {
	t.Parallel()
	good := forge{}.make(t)
	report, err := snp.Parse(good.evidence.Raw)
	if err != nil {
		t.Fatal(err)
	}
	key := bytes.Repeat([]byte{0xab}, 32)
	le := binary.LittleEndian
	handler := func(c emulate.Call) unix.Errno {
		arg := make([]byte, 32)
		if c.Read(c.Arg, arg) != nil || arg[0] != 1 {
			return unix.EINVAL
		}
		var answer []byte
		switch c.Request {
		case 0xc0205300:
			answer = make([]byte, 4000)
			le.PutUint32(answer[4:], snp.ReportSize)
			copy(answer[32:], good.evidence.Raw)
		case 0xc0205301:
			request := make([]byte, 32)
			if c.Read(le.Uint64(arg[8:]), request) != nil || le.Uint64(request[8:]) != 0b101111 || !bytes.Equal(request[24:], report.CommittedTCB[:]) {
				return unix.EINVAL
			}
			answer = append(make([]byte, 32), key...)
		default:
			return unix.ENOTTY
		}
		if c.Write(le.Uint64(arg[16:]), answer) != nil {
			return unix.EFAULT
		}
		return 0
	}
	for hint, want := range map[string]string{
		"none":             fmt.Sprintf("%x %x", key, report.CommittedTCB[:]),
		"0102030405060708": string(attest.CodeNoSealing), // what the handler does not answer
		"01":               string(attest.CodeSealBroken),
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Env = append(os.Environ(), sealing+"="+hint)
		if err := emulate.Start(cmd, map[string]emulate.Handler{"/dev/sev-guest": handler}); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || out.String() != want {
			t.Errorf("%s: %v: got %s, want %s", hint, err, &out, want)
		}
	}
	// Where there is no device, there is no key.
	if _, err := os.Stat("/dev/sev-guest"); err != nil {
		if root, _, err := (snp.KeySource{}).Root(nil); attest.CodeOf(err) != attest.CodeNoSealing || root != nil {
			t.Errorf("%x, %v", root, err)
		}
	}
}
