// Command jurat proves, and checks, which hardware, firmware and software hold the other end of a TLS connection. It is
// the only place where platforms, transports and text are joined.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/public"
)

const usage = `jurat puts TLS with attestation evidence around a service that nobody changes.

Usage:
  jurat serve   --tee auto|snp|sim --listen ADDR --to ADDR [--tcp] [--name NAME]... [--require policy.yaml]
  jurat serve   -c jurat.yaml [--check] | --schema
  jurat forward -p policy.yaml --listen ADDR TARGET          plain local port -> attested TLS
  jurat forward -p policy.yaml --listen ADDR --proxy --allow HOST[:PORT]...    the same as a CONNECT and SOCKS5 proxy
  jurat control --dir DIR --state DIR --listen ADDR -p proxies.yaml    configuration over xDS, for attested proxies
  jurat control --dir DIR --check | status | plan DIR | history
  jurat verify  -p policy.yaml [--json] [--save F.jurat] TARGET | F.jurat
  jurat verify  -p policy.yaml --evidence FILE --format snp --report-data HEX [--endorsement FILE]...
  jurat inspect TARGET | FILE                                decodes, never judges
  jurat exec    -p policy.yaml --to HOST[:PORT]... -- CMD ARGS...
  jurat pin     -p policy.yaml TARGET                        sha256//... for curl --pinnedpubkey
  jurat policy  init TARGET | check FILE [--floor FILE] | explain FILE | lint FILE | schema
  jurat policy  test FILE EVIDENCE... | diff OLD NEW EVIDENCE...    over recorded peers
  jurat result  FILE --key VERIFIER.pem                      checks what another verifier found and signed
  jurat log     check DIR | head DIR | list DIR | prove DIR INDEX | proof FILE
  jurat endorse export -o BUNDLE [-p policy.yaml] [--amd LINE] [--intel FMSPC] [TARGET | F.jurat]...
  jurat endorse import BUNDLE                                for a place that cannot reach the vendors
  jurat attest  --report-data HEX
  jurat doctor
  jurat version

Run "jurat COMMAND -h" for the flags of a command. "-" is standard input.

Exit codes: 0 affirmed, 1 internal, 2 usage or configuration, 3 unreachable or TLS, 4 no evidence, 5 evidence not
authentic or not bound, 6 refused by policy, 7 undecidable, 8 no TEE here. exec: the child's; 125 if refused before start.

Example:
  python3 -m http.server 8000 --bind 127.0.0.1 &
  jurat serve --tee sim --listen 127.0.0.1:8443 --to 127.0.0.1:8000 &
  jurat policy init --binding key 127.0.0.1:8443 > policy.yaml
  jurat exec -p policy.yaml --to 127.0.0.1:8443 -- curl https://127.0.0.1:8443/
`

// app is the world as the commands see it: tests give them another.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time
	listen         func(address string) (net.Listener, error) // opens the addresses of listeners; nil is the system
	crowded        bool                                       // others are in this process, whose memory is not this one's to tidy
	sealer         public.Sealer                              // of what is stored; nil where nothing seals
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	a := &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv,
		// Neither the zone nor the monotonic reading survives a record, and a replay has to give the same bytes.
		now: func() time.Time { return time.Now().UTC().Round(0) },
	}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// exitError ends the program with a code and without a message: all has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func (a *app) run(ctx context.Context, args []string) int {
	err := a.dispatch(ctx, args)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &exit):
		return int(exit)
	}
	a.complain(err)
	return attest.CodeOf(err).Exit()
}

// complain writes an error and what to do about it.
func (a *app) complain(err error) {
	fmt.Fprintf(a.stderr, "jurat: %s\n", printable(strings.ReplaceAll(err.Error(), "\n", "; "))) // errors.Join writes one a line
	var coded *attest.Error
	if errors.As(err, &coded) && coded.Remedy() != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", printable(coded.Remedy()))
	}
}

func (a *app) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(a.stderr, usage)
		return exitError(2)
	}
	commands := map[string]func(context.Context, []string) error{
		"serve": a.serve, "forward": a.forward, "verify": a.verify, "inspect": a.inspect, "exec": a.exec, "pin": a.pin,
		"policy": a.policy, "result": a.attestationResult, "log": a.evidenceLog, "endorse": a.endorse, "attest": a.attest, "doctor": a.doctor, "version": a.version,
	}
	maps.Copy(commands, a.controlCommands())
	name := args[0]
	if command, ok := commands[name]; ok {
		return command(ctx, args[1:])
	}
	switch name {
	case "help", "-h", "-help", "--help":
		fmt.Fprint(a.stdout, usage)
		return nil
	case "--version", "-version":
		return a.version(ctx, nil)
	}
	return usageError("command %.40q is not known", name)
}

func usageError(format string, args ...any) error {
	return &attest.Error{Code: attest.CodeUsage, Check: "usage", Err: fmt.Errorf(format, args...)}
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(v string) error {
	*l = append(*l, v)
	return nil
}

// flags makes the flag set of a command; synopsis is its line in the usage.
func (a *app) flags(synopsis string) *flag.FlagSet {
	fs := flag.NewFlagSet(synopsis, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // parse says it, with a code
	fs.Usage = func() {}
	return fs
}

// parse reads the flags, which may stand before and behind the arguments, and answers the arguments. Everything behind
// "--" is left alone.
func (a *app) parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		left, err := a.parseLeading(fs, args)
		if err != nil {
			return nil, err
		}
		if consumed := len(args) - len(left); len(left) == 0 || consumed > 0 && args[consumed-1] == "--" {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

// parseLeading reads the flags up to the first argument, and answers the rest.
func (a *app) parseLeading(fs *flag.FlagSet, args []string) ([]string, error) {
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(a.stdout, "Usage: jurat %s\n", fs.Name())
		fs.SetOutput(a.stdout)
		fs.PrintDefaults()
		return nil, err
	}
	if err != nil {
		return nil, usageError("%v", err)
	}
	// --nonce "$N" with N unset is an expectation that is absent, not one that is waived.
	fs.Visit(func(f *flag.Flag) {
		if f.Value.String() == "" && err == nil {
			err = usageError("--%s has an empty value: leave it out, or say what is meant", f.Name)
		}
	})
	if err != nil {
		return nil, err
	}
	return fs.Args(), nil
}
