package nitro_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/test/emulate"
)

const childVariable = "JURAT_NITRO_CHILD"

func TestMain(m *testing.M) {
	emulate.Main()
	if os.Getenv(childVariable) != "" {
		child()
	}
	os.Exit(m.Run())
}

// child collects as a proxy does, and writes what it got.
func child() {
	source, err := nitro.Probe()
	if err == nil {
		var a *nitro.Attester
		if a, err = nitro.NewAttester(); err == nil {
			var ev *attest.Evidence
			if ev, err = a.Attest(context.Background(), userData); err == nil {
				fmt.Printf("%s %s %s %d %x\n", source, a.Source(), ev.Format, len(ev.Endorsements), ev.Raw)
				os.Exit(0)
			}
		}
	}
	fmt.Println(attest.CodeOf(err), err)
	os.Exit(0)
}

// collect runs the child, with the device that answers requests so, or without one.
func collect(t *testing.T, device emulate.Handler) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	cmd.Env = append(os.Environ(), childVariable+"=1")
	devices := map[string]emulate.Handler{}
	if device != nil {
		devices["/dev/nsm"] = device
	}
	if err := emulate.Start(cmd, devices); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

// module is the kernel's device with an enclave's module behind it. respond answers a decoded request.
func module(t *testing.T, respond func(request []byte) ([]byte, unix.Errno)) emulate.Handler {
	return func(c emulate.Call) unix.Errno {
		vectors := make([]byte, 32)
		if err := c.Read(c.Arg, vectors); err != nil || c.Request != 0xc0200a00 {
			t.Errorf("request %#x: %v", c.Request, err)
			return unix.ENOTTY
		}
		word := func(i int) uint64 { return binary.LittleEndian.Uint64(vectors[8*i:]) }
		if word(1) > 0x1000 || word(3) != 0x3000 {
			t.Errorf("request of %d bytes, room for %d", word(1), word(3))
			return unix.EMSGSIZE
		}
		request := make([]byte, word(1))
		if err := c.Read(word(0), request); err != nil {
			return unix.EFAULT
		}
		response, errno := respond(request)
		if errno != 0 {
			return errno
		}
		binary.LittleEndian.PutUint64(vectors[24:], uint64(len(response)))
		if err := errors.Join(c.Write(word(2), response[:min(len(response), 0x3000)]), c.Write(c.Arg, vectors)); err != nil {
			return unix.EFAULT
		}
		return 0
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := strictcbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func answer(t *testing.T, document []byte) []byte {
	return marshal(t, map[string]any{"Attestation": map[string]any{"document": document}})
}

// The collector runs unmodified against an emulated device, and what it collects verifies.
func TestCollect(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	got := collect(t, module(t, func(request []byte) ([]byte, unix.Errno) {
		v, err := strictcbor.Parse(request, strictcbor.Limits{Depth: 3, Items: 10})
		fields := v.Field("Attestation")
		data, _ := fields.Field("user_data").Bytes()
		if err != nil || v.Len() != 1 || fields.Len() != 3 || !fields.Field("nonce").IsNull() || !fields.Field("public_key").IsNull() {
			t.Errorf("request %x: %v", request, err)
		}
		return answer(t, set("user_data", data).document(t, f.certs)), 0
	}))
	raw, ok := strings.CutPrefix(got, "nsm nsm nitro 0 ")
	document, err := hex.DecodeString(raw)
	if !ok || err != nil {
		t.Fatal(got)
	}
	c, err := nitro.NewVerifier(f.roots).Verify(t.Context(), &attest.Evidence{Format: nitro.Format, Raw: document}, nil, epoch)
	if err != nil || c.ReportData != userData {
		t.Fatal(err)
	}
}

func TestCollectRefuses(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	for name, c := range map[string]struct {
		response []byte
		errno    unix.Errno
		text     string
	}{
		"module refuses":        {marshal(t, map[string]any{"Error": "InvalidOperation"}), 0, "InvalidOperation"},
		"kernel refuses":        {nil, unix.EIO, "input/output error"},
		"no answer":             {[]byte{}, 0, "answer: "},
		"garbage":               {[]byte{0xff}, 0, "answer: "},
		"another answer":        {marshal(t, map[string]any{"GetRandom": map[string]any{"random": []byte{1}}}), 0, "without a document"},
		"document as text":      {marshal(t, map[string]any{"Attestation": map[string]any{"document": "x"}}), 0, "without a document"},
		"document of garbage":   {answer(t, []byte("x")), 0, "J201"},
		"answer with more":      {append(answer(t, f.evidence.Raw), 0), 0, "answer: "},
		"answer beyond its end": {make([]byte, 0x3001), 0, "an answer of 12289 bytes"},
		"over other data":       {answer(t, set("user_data", make([]byte, 64)).document(t, f.certs)), 0, "other data"},
		"over no data":          {answer(t, without("user_data").document(t, f.certs)), 0, "other data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := collect(t, module(t, func([]byte) ([]byte, unix.Errno) { return c.response, c.errno }))
			if !strings.HasPrefix(got, string(attest.CodeAttesterFailed)+" ") || !strings.Contains(got, c.text) {
				t.Errorf("got %s", got)
			}
		})
	}
	if _, err := nitro.NewAttester(); attest.CodeOf(err) != attest.CodeNoTEE {
		t.Errorf("without a device: %v", err)
	}
	if got := collect(t, nil); !strings.HasPrefix(got, string(attest.CodeNoTEE)+" ") {
		t.Errorf("without a device: %s", got)
	}
}
