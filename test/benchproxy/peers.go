package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kind is a proxy that takes part.
type kind struct {
	name    string
	program string
	conf    string
	args    []string // of the program; FILE is the configuration
	version []string
	noTCP   bool // it can't carry TCP
}

const (
	direct  = "direct" // the backend itself, without TLS: what a latency consists of anyway
	product = "jurat"
	earlier = "before" // another build of it
)

// kinds are in the order in which they take turns.
func kinds() []kind {
	own := kind{name: product, program: "jurat", conf: "jurat.yaml", args: []string{"serve", "-c", "FILE"}, version: []string{"version"}}
	all := []kind{
		own,
		{name: "nginx", program: "nginx", conf: "nginx.conf", args: []string{"-c", "FILE"}, version: []string{"-v"}},
		{name: "haproxy", program: "haproxy", conf: "haproxy.cfg", args: []string{"-db", "-f", "FILE"}, version: []string{"-v"}},
		{name: "caddy", program: "caddy", conf: "caddy.json", args: []string{"run", "--config", "FILE"}, version: []string{"version"}, noTCP: true},
		{name: "envoy", program: "envoy", conf: "envoy.yaml", args: []string{"--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", "FILE"}, version: []string{"--version"}},
	}
	if *before != "" {
		own.name = earlier
		all = append(all, own)
	}
	return all
}

// find looks for a program beside this one, where it's built and fetched to, and in PATH.
func find(program string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(exe), program)
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	return exec.LookPath(program)
}

var (
	versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)?[^\s/]*`)
	versionDigest = regexp.MustCompile(`(?m)^(sha256 [0-9a-f]{12})[0-9a-f]+$`)
)

// version is what a program says of itself, however it says it.
func version(path string, args ...string) string {
	out, _ := exec.Command(path, args...).CombinedOutput() // wrk calls it an error
	return parseVersion(string(out))
}

func parseVersion(out string) string {
	if m := versionDigest.FindStringSubmatch(out); m != nil {
		return m[1] // of jurat
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if v := versionNumber.FindString(line); v != "" {
		return v
	}
	return line
}

// peer is a proxy that runs.
type peer struct {
	kind
	group
	front, frontTCP string
	cmd             *exec.Cmd
	ended           chan struct{}
	log             *bytes.Buffer
}

// tcp reports whether it can carry TCP.
func (p *peer) tcp() bool { return p.frontTCP != "" }

// start runs a proxy on a core, and waits until it serves. The caller stops it.
func start(ctx context.Context, k kind, path string, core int, s setup) (*peer, error) {
	var err error
	if s.Dir, err = os.MkdirTemp(s.Dir, k.name); err != nil {
		return nil, err
	}
	if s.Front, err = freeAddress(); err != nil {
		return nil, err
	}
	if s.FrontTCP, err = freeAddress(); err != nil {
		return nil, err
	}
	p := &peer{kind: k, front: s.Front, frontTCP: s.FrontTCP, ended: make(chan struct{}), log: new(bytes.Buffer)}
	if k.name == "nginx" {
		var ok bool
		if s.StreamModule, ok = streamModule(path); !ok {
			s.FrontTCP = ""
		}
	}
	if k.noTCP {
		s.FrontTCP = ""
	}
	p.frontTCP = s.FrontTCP
	file, err := s.write(k.conf)
	if err != nil {
		return nil, err
	}
	args := []string{"-c", strconv.Itoa(core), path}
	for _, a := range k.args {
		args = append(args, strings.ReplaceAll(a, "FILE", file))
	}
	p.cmd = exec.Command("taskset", args...)
	p.cmd.Dir = s.Dir
	p.cmd.Env = append(os.Environ(), "HOME="+s.Dir, "XDG_DATA_HOME="+s.Dir, "XDG_CONFIG_HOME="+s.Dir)
	if k.name == "haproxy" {
		cnf, err := s.write("openssl.cnf")
		if err != nil {
			return nil, err
		}
		p.cmd.Env = append(p.cmd.Env, "OPENSSL_CONF="+cnf)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.group = group(p.cmd.Process.Pid)
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	for _, addr := range []string{p.front, p.frontTCP} {
		if addr == "" {
			continue
		}
		if err := p.await(ctx, addr); err != nil {
			p.stop()
			return nil, err
		}
	}
	return p, nil
}

// await waits until somebody listens.
func (p *peer) await(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %.600s", p.name, p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s doesn't listen: %w", p.name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends a proxy with all of its processes.
func (p *peer) stop() {
	_ = syscall.Kill(-int(p.group), syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(2 * time.Second):
	}
	_ = syscall.Kill(-int(p.group), syscall.SIGKILL) // workers too, if there are any left
	<-p.ended
}

// freeAddress is one on loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

var modulesPath = regexp.MustCompile(`--modules-path=(\S+)`)

// streamModule finds the part of nginx that carries TCP: "" where it's built in.
func streamModule(nginx string) (path string, ok bool) {
	out, err := exec.Command(nginx, "-V").CombinedOutput()
	if err != nil {
		return "", false
	}
	if regexp.MustCompile(`--with-stream(\s|$)`).Match(out) {
		return "", true
	}
	m := modulesPath.FindSubmatch(out)
	if m == nil {
		return "", false
	}
	path = filepath.Join(string(m[1]), "ngx_stream_module.so")
	_, err = os.Stat(path)
	return path, err == nil
}

// service is the backend in a process of its own.
type service struct {
	addresses
	cmd *exec.Cmd
	in  io.Closer
}

func startBackend() (*service, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &service{cmd: exec.Command(exe, "-backend")}
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us; it ends with its input
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(out).Decode(&s.addresses); err != nil {
		s.stop()
		return nil, errors.Join(errors.New("the backend doesn't start"), err)
	}
	return s, nil
}

func (s *service) stop() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}
