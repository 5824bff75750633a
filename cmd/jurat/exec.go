package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
)

// Exit codes of exec beside the child's, as env(1) has them.
const (
	exitRefused     = 125
	exitNotRunnable = 126
	exitNotFound    = 127
)

// exec appraises every --to host and runs a command in an environment in which the usual TLS clients trust the keys that
// were appraised and nothing else. The child talks TLS end to end into the TEE; nothing is intercepted.
func (a *app) exec(ctx context.Context, args []string) error {
	fs := a.flags("exec -p policy.yaml --to HOST[:PORT]... -- CMD ARGS...")
	var to list
	fs.Var(&to, "to", "`HOST[:PORT]` the command may talk to; repeat for more (port 443 if absent)")
	rf := a.relyingFlags(fs)
	cmd, err := a.parseLeading(fs, args)
	if err != nil {
		return err
	}
	switch {
	case len(to) == 0:
		return usageError("exec needs --to HOST[:PORT] for every host that the command talks to")
	case len(cmd) == 0:
		return usageError("exec needs a command after --")
	}
	rp, err := rf.load(a)
	if err != nil {
		return err
	}
	var leaves [][]byte
	for _, target := range to {
		appraisal, err := rp.dialCertificate(ctx, target)
		if err != nil {
			a.complain(err)
			return exitError(exitRefused)
		}
		a.warnSimulated(appraisal.result, appraisal.target)
		if r := appraisal.result; !r.Affirmed() {
			a.complain(forCertificate(withSubject(r.Err(), appraisal.target)))
			return exitError(exitRefused)
		}
		leaves = append(leaves, appraisal.shown.Chain[0])
		fmt.Fprintf(a.stderr, "jurat: %s: %s gets a key to pin (level %s); jurat forward reaches level %s\n", printable(appraisal.target), printable(cmd[0]), attest.LevelPinned, attest.LevelSession)
	}
	dir, err := os.MkdirTemp("", "jurat-exec-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	env, err := closedEnv(dir, leaves, os.Environ())
	if err != nil {
		return err
	}
	return a.child(cmd, env)
}

// forCertificate says what to do where a program that connects by itself can't reach the level that a policy demands.
func forCertificate(err error) error {
	var coded *attest.Error
	if errors.As(err, &coded) && coded.Code == attest.CodeBindingTooWeak {
		told := *coded
		told.Hint = "a program that knows nothing of attestation is given a key to pin, and no more: jurat forward gives it session, or take the key with --unsafe-binding key"
		return &told
	}
	return err
}

// child runs cmd to its end. Signals that a terminal sends reach the child by themselves; the others are passed on.
func (a *app) child(cmd, env []string) error {
	child := exec.Command(cmd[0], cmd[1:]...)
	child.Stdin, child.Stdout, child.Stderr, child.Env = a.stdin, a.stdout, a.stderr, env
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := child.Start(); err != nil {
		fmt.Fprintf(a.stderr, "jurat: %v\n", err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return exitError(exitNotFound)
		}
		return exitError(exitNotRunnable)
	}
	done := make(chan error, 1)
	go func() { done <- child.Wait() }()
	for {
		select {
		case s := <-signals:
			if s != os.Interrupt && s != syscall.SIGQUIT {
				_ = child.Process.Signal(s)
			}
		case err := <-done:
			return childExit(err)
		}
	}
}

func childExit(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitError(128 + int(ws.Signal()))
	}
	return exitError(exit.ExitCode())
}

// closedEnv writes the trust of a child into dir and answers its environment. Each tool needs its own words, and with
// some of them one setting alone leaves the system's authorities in force:
//   - OpenSSL, Go, Python and Node read SSL_CERT_DIR beside SSL_CERT_FILE;
//   - curl has a directory compiled in that no variable turns off, only a .curlrc does;
//   - git and wget likewise take a directory beside the file;
//   - NODE_EXTRA_CA_CERTS only adds to what Node has built in.
func closedEnv(dir string, leaves [][]byte, base []string) ([]string, error) {
	var bundle bytes.Buffer
	var pins []string
	for _, der := range leaves {
		if err := pem.Encode(&bundle, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return nil, err
		}
		content, err := ratls.Open([][]byte{der})
		if err != nil {
			return nil, err
		}
		if pin := ratls.Pin(content.Leaf); !slices.Contains(pins, pin) {
			pins = append(pins, pin)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	if strings.ContainsAny(dir, "\"\\\n") {
		return nil, &attest.Error{Code: attest.CodeUsage, Check: "exec", Got: fmt.Sprintf("temporary directory %q", dir), Want: "a path without quotes"}
	}
	leaf, none := file("leaf.pem"), file("none")
	if err := os.Mkdir(none, 0o500); err != nil {
		return nil, err
	}
	curlrc := fmt.Sprintf("cacert = \"%s\"\ncapath = \"%s\"\npinnedpubkey = \"%s\"\nproto = \"=https\"\nproto-redir = \"=https\"\n", leaf, none, strings.Join(pins, ";"))
	wgetrc := fmt.Sprintf("ca_certificate = %s\nca_directory = %s\ncheck_certificate = on\nhttps_only = on\n", leaf, none)
	gitconfig := fmt.Sprintf("[http]\n\tsslVerify = true\n\tsslCAInfo = %s\n\tsslCAPath = %s\n\tpinnedPubkey = %s\n", leaf, none, strings.Join(pins, ";"))
	for name, content := range map[string]string{"leaf.pem": bundle.String(), ".curlrc": curlrc, "wgetrc": wgetrc, "gitconfig": gitconfig} {
		if err := os.WriteFile(file(name), []byte(content), 0o400); err != nil {
			return nil, err
		}
	}
	set := map[string]string{
		"CURL_HOME": dir, "CURL_CA_BUNDLE": leaf,
		"SSL_CERT_FILE": leaf, "SSL_CERT_DIR": none,
		"REQUESTS_CA_BUNDLE": leaf, "PIP_CERT": leaf,
		"NODE_OPTIONS":   "--use-openssl-ca",
		"GIT_SSL_CAINFO": leaf, "GIT_SSL_CAPATH": none,
		"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "include.path", "GIT_CONFIG_VALUE_0": file("gitconfig"),
		"WGETRC": file("wgetrc"), "AWS_CA_BUNDLE": leaf, "CARGO_HTTP_CAINFO": leaf,
		"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": leaf, "npm_config_cafile": leaf, "npm_config_strict_ssl": "true",
	}
	// A proxy would be a second party; verification that is switched off would be none.
	drop := []string{
		"NODE_EXTRA_CA_CERTS", "NODE_USE_SYSTEM_CA", "NODE_TLS_REJECT_UNAUTHORIZED", "PYTHONHTTPSVERIFY", "PIP_TRUSTED_HOST",
		"GIT_SSL_NO_VERIFY", "SSLKEYLOGFILE", "GIT_PROXY_SSL_CAINFO", "npm_config_ca", "npm_config_cafile", "npm_config_strict_ssl",
		"http_proxy", "https_proxy", "all_proxy", "npm_config_proxy", "npm_config_https_proxy",
	}
	env := slices.DeleteFunc(slices.Clone(base), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		_, replaced := set[name]
		dropped := slices.ContainsFunc(drop, func(d string) bool { return strings.EqualFold(d, name) })
		return replaced || dropped || strings.HasPrefix(name, "GIT_CONFIG_")
	})
	for name, value := range set {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env, nil
}
