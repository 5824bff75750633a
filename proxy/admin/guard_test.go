package admin_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/admin"
)

func port(a net.Addr) string { return strconv.Itoa(a.(*net.TCPAddr).Port) }

// DNS rebinding: a page of evil.example, whose name now resolves to 127.0.0.1, is of the same origin as this server to its
// browser. Host gives it away.
func TestHost(t *testing.T) {
	d := &did{}
	addr := serve(t, local, source(d), admin.Options{Names: []string{"jurat.internal", "Forwarded.example:1234", "fd00::7"}})
	p := port(addr)
	for _, c := range []struct {
		host string
		ok   bool
	}{
		{"127.0.0.1:" + p, true},
		{"127.9.8.7:" + p, true},
		{"localhost:" + p, true},
		{"LocalHost:" + p, true},
		{"[::1]:" + p, true},
		{"[::ffff:127.0.0.1]:" + p, true},
		{"jurat.internal:" + p, true},
		{"JURAT.internal:" + p, true},
		{"forwarded.example:1234", true},
		{"[fd00::7]:" + p, true},

		{"127.0.0.1", false},
		{"localhost", false},
		{"localhost:", false},
		{"localhost:1", false},
		{"localhost:0" + p, false},
		{"forwarded.example:" + p, false},
		{"forwarded.example", false},
		{"jurat.internal", false},
		{"jurat.internal:1", false},
		{"evil.example", false},
		{"evil.example:" + p, false},
		{"localhost.evil.example:" + p, false},
		{"evil-localhost:" + p, false},
		{"127.0.0.1.evil.example:" + p, false},
		{"127.0.0.1.nip.io:" + p, false},
		{"localhost.:" + p, false},
		{"0.0.0.0:" + p, false},
		{"[::]:" + p, false},
		{"10.0.0.1:" + p, false},
		{"[fd00::8]:" + p, false},
		{"127.1:" + p, false},
		{"2130706433:" + p, false},
		{"0x7f.1:" + p, false},
		{"[::1%25lo]:" + p, false},
		{"::1:" + p, false},
		{"[]:" + p, false},
		{":" + p, false},
	} {
		a := ask(t, addr, http.MethodPost, "/drain", "Host: "+c.host, "Content-Length: 0")
		want, done := http.StatusForbidden, ""
		if c.ok {
			want, done = http.StatusOK, "drainG"
		}
		// net/http itself refuses a Host that is none with 400.
		if got := d.take(); got != done || a.status != want && (c.ok || a.status != http.StatusBadRequest) {
			t.Errorf("%s: %d, did %q", c.host, a.status, got)
		}
		if a := ask(t, addr, http.MethodGet, "/stats", "Host: "+c.host); (a.status == http.StatusOK) != c.ok {
			t.Errorf("GET with %s: %d", c.host, a.status)
		}
	}
	// The target counts where it names a host.
	if a := ask(t, addr, http.MethodGet, "http://evil.example/ready", "Host: localhost:"+p); a.status != http.StatusForbidden {
		t.Errorf("%+v", a)
	}
	if a := ask(t, addr, http.MethodGet, "/ready", "Host: localhost:"+p, "X-Forwarded-Host: evil.example"); a.status != http.StatusOK {
		t.Errorf("%+v", a)
	}
}

// The port of http is not written.
func TestDefaultPort(t *testing.T) {
	has := admin.Guarded(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, admin.Options{Names: []string{"jurat.internal"}})
	for host, want := range map[string]bool{
		"localhost": true, "localhost:80": true, "127.0.0.1": true, "127.0.0.1:80": true, "[::1]": true, "[::1]:80": true, "jurat.internal": true,
		"localhost:81": false, "evil.example": false, "10.0.0.1": false, "": false, "[]": false,
	} {
		if got := has(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	if nowhere := admin.Guarded(nil, admin.Options{}); nowhere("localhost") {
		t.Error("a listener of an unknown kind has a host")
	}
}

// HTTP/1.0 may leave Host out: that is nobody's.
func TestNoHost(t *testing.T) {
	addr := serve(t, local, source(&did{}), admin.Options{})
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /ready HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(c); !strings.HasPrefix(string(b), "HTTP/1.0 403 ") {
		t.Errorf("%s", b)
	}
}

// A page of another origin can make a browser send requests, even if it can't read the answers.
func TestOrigin(t *testing.T) {
	for _, address := range []string{local, "unix:" + filepath.Join(t.TempDir(), "s")} {
		d := &did{}
		addr := serve(t, address, source(d), admin.Options{})
		host := "localhost"
		if a, ok := addr.(*net.TCPAddr); ok {
			host = a.String()
		}
		for _, c := range []struct {
			header []string
			ok     bool
		}{
			{nil, true},
			{[]string{"Origin: http://" + host}, true},
			{[]string{"Sec-Fetch-Site: same-origin"}, true},
			{[]string{"Sec-Fetch-Site: none"}, true},
			{[]string{"Origin: http://" + host, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate"}, true},

			{[]string{"Origin: http://evil.example"}, false},
			{[]string{"Origin: https://" + host}, false},
			{[]string{"Origin: http://" + host + ".evil.example"}, false},
			{[]string{"Origin: http://127.0.0.1:1"}, false},
			{[]string{"Origin: null"}, false},
			{[]string{"Origin:"}, false},
			{[]string{"Origin: http://" + host, "Origin: http://evil.example"}, false},
			{[]string{"Sec-Fetch-Site: cross-site"}, false},
			{[]string{"Sec-Fetch-Site: same-site"}, false},
			{[]string{"Sec-Fetch-Site: SAME-ORIGIN"}, false},
			{[]string{"Sec-Fetch-Site:"}, false},
			{[]string{"Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"}, false},
			{[]string{"Origin: http://" + host, "Sec-Fetch-Site: cross-site"}, false},
			{[]string{"Origin: http://evil.example", "Sec-Fetch-Site: same-origin"}, false},
		} {
			header := append([]string{"Host: " + host}, c.header...)
			for _, what := range []struct{ method, target, did string }{{"POST", "/quitquitquit", "quit"}, {"GET", "/ready", ""}, {"GET", "/", ""}} {
				a := ask(t, addr, what.method, what.target, header...)
				want, done := http.StatusOK, what.did
				if !c.ok {
					want, done = http.StatusForbidden, ""
				}
				if got := d.take(); a.status != want || got != done {
					t.Errorf("%s %s %q: %d, did %q", what.method, what.target, c.header, a.status, got)
				}
			}
		}
		// Nobody is invited: no answer allows another origin anything.
		for _, method := range []string{"GET", "OPTIONS"} {
			a := ask(t, addr, method, "/ready", "Host: "+host, "Origin: http://evil.example", "Access-Control-Request-Method: POST")
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s", name)
				}
			}
		}
	}
}

func TestHeaders(t *testing.T) {
	addr := serve(t, local, source(&did{}), admin.Options{})
	for _, c := range []struct{ method, target, host string }{
		{"GET", "/", ""}, {"GET", "/ready", ""}, {"GET", "/stats/prometheus", ""}, {"POST", "/drain", ""}, {"GET", "/drain", ""}, {"GET", "/nothing", ""}, {"GET", "/", "evil.example"},
	} {
		host := c.host
		if host == "" {
			host = addr.String()
		}
		a := ask(t, addr, c.method, c.target, "Host: "+host, "Content-Length: 0")
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if got := a.header[name]; len(got) != 1 || got[0] != want {
				t.Errorf("%+v: %s is %q", c, name, got)
			}
		}
		if got := a.header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") || !strings.Contains(got, "frame-ancestors 'none'") {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestTooLargeHead(t *testing.T) {
	addr := serve(t, local, source(&did{}), admin.Options{})
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /ready HTTP/1.1\r\nHost: "+addr.String()+"\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	// The answer is lost where the connection is closed before everything was read.
	if b, err := io.ReadAll(c); !strings.HasPrefix(string(b), "HTTP/1.1 431 ") && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v %s", err, b)
	}
}

// Whatever stands in Host, it is let through only where no other machine's name can lead here.
func FuzzHost(f *testing.F) {
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9901}
	for _, s := range []string{"localhost:9901", "[::1]:9901", "127.0.0.1:9901", "evil.example:9901", "127.0.0.1.evil.example:9901", "", ":9901", "[::1%1]:9901", "localhost"} {
		f.Add(s)
	}
	h := admin.Guarded(addr, admin.Options{})
	f.Fuzz(func(t *testing.T, host string) {
		if !h(host) {
			return
		}
		name, p, err := net.SplitHostPort(host)
		ip, err2 := netip.ParseAddr(name)
		if err != nil || p != "9901" || !strings.EqualFold(name, "localhost") && (err2 != nil || !ip.Unmap().IsLoopback()) {
			t.Errorf("%q is let through", host)
		}
	})
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		address string
		code    attest.Code
	}{
		{"127.0.0.1:0", ""},
		{"127.1.2.3:0", ""},
		{"localhost:0", ""},
		{"unix:" + dir + "/ok", ""},

		{":0", attest.CodeConfigValue},
		{"0.0.0.0:0", attest.CodeConfigValue},
		{"[::]:0", attest.CodeConfigValue},
		{"10.0.0.1:0", attest.CodeConfigValue},
		{"example.org:0", attest.CodeConfigValue},
		{"localhost.example:0", attest.CodeConfigValue},
		{"127.0.0.1", attest.CodeConfigValue},
		{"", attest.CodeConfigValue},
		{"unix:", attest.CodeConfigValue},
		{"unix:@abstract", attest.CodeConfigValue},
		{"127.0.0.1:http-or-what", attest.CodeListen},
		{"unix:" + dir + "/no/such/dir", attest.CodeListen},
	} {
		ln, err := admin.Listen(context.Background(), c.address, admin.Options{})
		var e *attest.Error
		if attest.CodeOf(err) != c.code || err != nil && (!errors.As(err, &e) || e.Subject == "") {
			t.Errorf("%s: %v", c.address, err)
		}
		if err == nil {
			_ = ln.Close()
		}
	}
	if _, err := admin.Listen(context.Background(), "127.0.0.1", admin.Options{UnsafeAnyAddress: true}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
	ln, err := admin.Listen(context.Background(), "0.0.0.0:0", admin.Options{UnsafeAnyAddress: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := admin.New(ln, admin.Source{}, admin.Options{}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("%v", err)
	}
}

// Somebody else may have opened the listener.
func TestNewChecks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o700: true, 0o660: false, 0o606: false, 0o602: false, 0o777: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.New(ln, admin.Source{}, admin.Options{}); (err == nil) != ok {
			t.Errorf("%v: %v", mode, err)
		}
		if _, err := admin.New(ln, admin.Source{}, admin.Options{UnsafeAnyAddress: true}); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
	}
	if runtime.GOOS == "linux" {
		abstract, err := net.Listen("unix", "@jurat-admin-test-"+strconv.Itoa(os.Getpid()))
		if err != nil {
			t.Fatal(err)
		}
		defer abstract.Close()
		if _, err := admin.New(abstract, admin.Source{}, admin.Options{}); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%v", err)
		}
	}
}

// With the unsafe option an address is as good as another; a name still is not.
func TestUnsafeAddress(t *testing.T) {
	addr := serve(t, "0.0.0.0:0", source(&did{}), admin.Options{UnsafeAnyAddress: true, Names: []string{"jurat.example"}})
	to := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addr.(*net.TCPAddr).Port}
	for host, want := range map[string]int{"10.0.0.1": 200, "127.0.0.1": 200, "jurat.example": 200, "evil.example": 403} {
		if a := ask(t, to, "GET", "/ready", "Host: "+host+":"+port(addr)); a.status != want {
			t.Errorf("%s: %+v", host, a)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	old := syscall.Umask(0) // nothing but the server keeps others out
	addr := serve(t, "unix:"+path, source(&did{}), admin.Options{})
	syscall.Umask(old)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("%v %v", err, info.Mode())
	}
	for _, host := range []string{"localhost", "evil.example", "anything", "x:1"} {
		if a := ask(t, addr, "GET", "/ready", "Host: "+host); a.status != 200 || a.body != "LIVE\n" {
			t.Errorf("%s: %+v", host, a)
		}
	}
}

// A socket that a process left behind is replaced; one that is in use, or no socket, is not.
func TestSocketLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	listen := func() error {
		ln, err := admin.Listen(context.Background(), "unix:"+path, admin.Options{})
		if err == nil {
			_ = ln.Close()
		}
		return err
	}
	if err := listen(); attest.CodeOf(err) != attest.CodeListen {
		t.Errorf("in use: %v", err)
	}
	_ = left.Close()
	if err := listen(); err != nil {
		t.Errorf("left behind: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := listen(); attest.CodeOf(err) != attest.CodeListen {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "precious" {
		t.Error(err)
	}
}

func TestShutdown(t *testing.T) {
	ln, err := admin.Listen(context.Background(), local, admin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	busy, free := make(chan struct{}), make(chan struct{})
	server, err := admin.New(ln, admin.Source{State: func() admin.State { close(busy); <-free; return admin.Live }}, admin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if err := server.Serve(); err != nil {
			t.Error(err)
		}
	})
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /ready HTTP/1.1\r\nHost: "+ln.Addr().String()+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-busy
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	close(free)
	all.Wait()
	// One that never served, and one whose listener broke.
	ln, err = admin.Listen(context.Background(), local, admin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if server, err = admin.New(ln, admin.Source{}, admin.Options{}); err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := server.Serve(); attest.CodeOf(err) != attest.CodeListen {
		t.Error(err)
	}
	if err := server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

// quitquitquit is answered before the end begins.
func TestQuitIsAnswered(t *testing.T) {
	ln, err := admin.Listen(context.Background(), local, admin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	quit := make(chan struct{})
	info := func() admin.ServerInfo { return admin.ServerInfo{Started: time.Now()} }
	server, err := admin.New(ln, admin.Source{Quit: func() { close(quit) }, ServerInfo: info}, admin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() { _ = server.Serve() })
	all.Go(func() {
		<-quit
		_ = server.Shutdown(context.Background())
	})
	if a := ask(t, ln.Addr(), "GET", "/server_info"); a.status != 200 || !regexp.MustCompile(`"uptime_current_epoch": "\ds"`).MatchString(a.body) {
		t.Errorf("%+v", a)
	}
	if a := ask(t, ln.Addr(), "POST", "/quitquitquit"); a.status != 200 || a.body != "OK\n" {
		t.Errorf("%+v", a)
	}
	all.Wait()
}
