package emulate_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/test/emulate"
)

func TestMain(m *testing.M) {
	emulate.Main()
	if os.Getenv("JURAT_EMULATE_CHILD") != "" {
		child()
	}
	os.Exit(m.Run())
}

const path = "/dev/not-there"

// child is the program that uses the device.
func child() {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	_, err = os.Open("/dev/null")
	fmt.Println("null:", err)
	_, err = os.Open("/dev/not-there-either")
	fmt.Println("missing:", errors.Is(err, os.ErrNotExist))
	buffer := bytes.Repeat([]byte{1}, 16)
	var pin runtime.Pinner
	pin.Pin(&buffer[0])
	for _, command := range []uintptr{7, 8} {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(unsafe.Pointer(&buffer[0])))
		fmt.Printf("%d: %d %x\n", command, int(errno), buffer)
	}
	os.Exit(0)
}

func TestEmulate(t *testing.T) {
	t.Parallel()
	for _, want := range []string{"first", "second"} { // one process each, one device each
		cmd := exec.Command(os.Args[0])
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Env = append(os.Environ(), "JURAT_EMULATE_CHILD=1")
		err := emulate.Start(cmd, map[string]emulate.Handler{path: func(c emulate.Call) unix.Errno {
			got := make([]byte, 4)
			if err := c.Read(c.Arg, got); err != nil || c.Request != 7 || !bytes.Equal(got, []byte{1, 1, 1, 1}) {
				return unix.ENOTTY
			}
			if err := c.Write(c.Arg, []byte(want)); err != nil {
				return unix.EFAULT
			}
			return 0
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
		filled := append([]byte(want), bytes.Repeat([]byte{1}, 16-len(want))...)
		text := fmt.Sprintf("null: <nil>\nmissing: true\n7: 0 %x\n8: %d %x\n", filled, int(unix.ENOTTY), filled)
		if out.String() != text {
			t.Errorf("got\n%swant\n%s", out.String(), text)
		}
	}
}

func TestWithoutTheDevice(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JURAT_EMULATE_CHILD=1")
	if err := emulate.Start(cmd, nil); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatal(err)
	}
}
