package e2e

import (
	"debug/elf"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const systemdUnits = "../../deploy/systemd/"

// systemd itself says whether the units are well-formed, where it is installed.
func TestUnitsAreWellFormed(t *testing.T) {
	need(t, "systemd-analyze")
	dir := t.TempDir()
	for _, unit := range []string{"jurat.service", "jurat.socket"} {
		raw, err := os.ReadFile(systemdUnits + unit)
		if err != nil {
			t.Fatal(err)
		}
		// verify wants to see the program.
		raw = []byte(strings.ReplaceAll(string(raw), "/usr/local/bin/jurat", binary))
		if err := os.WriteFile(filepath.Join(dir, unit), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(dir, "jurat.service"), filepath.Join(dir, "jurat.socket"))
	out, err := cmd.CombinedOutput()
	for line := range strings.SplitSeq(string(out), "\n") {
		// It also complains about other units of the machine it runs on.
		if strings.Contains(line, dir) || strings.Contains(line, "jurat.") {
			t.Error(line)
		}
	}
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
}

// What makes the unit hardened stays in it, each with the attack that it is there against.
func TestUnitIsHardened(t *testing.T) {
	raw, err := os.ReadFile(systemdUnits + "jurat.service")
	if err != nil {
		t.Fatal(err)
	}
	for setting, why := range map[string]string{
		"Type=notify":                      "dependents would start before it listens",
		"WatchdogSec=":                     "a hung proxy would stay",
		"DynamicUser=yes":                  "it would run as root",
		"NoNewPrivileges=yes":              "a setuid program would give privileges back",
		"CapabilityBoundingSet=":           "capabilities would be left",
		"LimitCORE=0":                      "a core dump would put private keys on disk",
		"MemorySwapMax=0":                  "swap would put private keys on disk",
		"ProtectSystem=strict":             "the system would be writable",
		"MemoryDenyWriteExecute=yes":       "injected code could run",
		"SystemCallFilter=@system-service": "the kernel's whole surface would be open",
		"DevicePolicy=closed":              "other devices would be open",
		"DeviceAllow=/dev/sev-guest rw":    "there would be no evidence",
	} {
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(setting)).Match(raw) {
			t.Errorf("the unit lacks %s: %s", setting, why)
		}
	}
}

// Under a service manager: the socket is taken over by its name, readiness and the watchdog are reported, and the end is
// announced. The manager here is the protocol's other end, spoken by the test.
func TestServiceManager(t *testing.T) {
	l := newLab(t)
	notifications, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: l.path("notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notifications.Close()
	_ = notifications.SetReadDeadline(time.Now().Add(patience))
	expect := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		for {
			n, err := notifications.Read(buf)
			if err != nil {
				t.Fatalf("no %s: %v", want, err)
			}
			if string(buf[:n]) == want {
				return
			}
			if want != "WATCHDOG=1" && string(buf[:n]) != "WATCHDOG=1" {
				t.Fatalf("got %s, want %s", buf[:n], want)
			}
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	inherited, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	config := l.write("jurat.yaml", "identity: {tee: \""+l.tee()+"\", names: [127.0.0.1]}\nlisten:\n  - {address: \"systemd:jurat\", to: \"127.0.0.1:1\"}\n")
	// The protocol wants the process's own number, which the shell knows and keeps through exec.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$@"`, "sh", binary, "serve", "-c", config, "--log", "json")
	cmd.Env = append(l.env(), "LISTEN_FDS=1", "LISTEN_FDNAMES=jurat", "NOTIFY_SOCKET="+l.path("notify"), "WATCHDOG_USEC=20000")
	cmd.ExtraFiles = []*os.File{inherited}
	p := l.startCommand(cmd)
	if got := p.address(); got != ln.Addr().String() {
		t.Errorf("listens on %s, not on the inherited %s", got, ln.Addr())
	}
	expect("READY=1")
	expect("WATCHDOG=1")
	l.must(0, "inspect", ln.Addr().String())
	done := make(chan struct{})
	go func() { defer close(done); p.stop() }()
	expect("STOPPING=1")
	<-done
}

// The image holds one static file; it runs with nothing else in its root.
func TestContainerImage(t *testing.T) {
	raw, err := os.ReadFile("../../deploy/container/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nFROM scratch\n", "\nCOPY bin/jurat /jurat\n", "\nUSER 65532:65532\n", "\nENTRYPOINT [\"/jurat\"]\n"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("the Containerfile lacks %q", want)
		}
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary is not static: it has a %s segment", p.Type)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("root is needed to run it in an empty root")
	}
	l := newLab(t)
	if o := l.run("sh", "-c", `mkdir "$2" && cp "$1" "$2/jurat" && chroot --userspec=65532:65532 "$2" /jurat version --json`, "sh", binary, l.path("image")); o.code != 0 || !strings.Contains(o.stdout, `"recipe"`) {
		t.Errorf("in an empty root: exit %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}
