package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/jurat-tls/jurat/attest"
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
	fs := a.flags("exec -p policy.yaml [--watch] --to HOST[:PORT]... -- CMD ARGS...")
	var to list
	var watch watchFlag
	fs.Var(&to, "to", "`HOST[:PORT]` the command may talk to; repeat for more (port 443 if absent)")
	fs.Var(&watch, "watch", "appraise them again and again while the command runs, and have it trust what they serve with by then; --watch=`EVERY` says how often (default "+defaultWatch.String()+")")
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
	leaves := map[string][][]byte{}
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
		leaves[appraisal.target] = [][]byte{appraisal.shown.Chain[0]}
		// The key of now may be replaced in the next moment.
		if next, err := rp.dialSuccessor(ctx, target); err == nil && next.result.Affirmed() {
			leaves[appraisal.target] = append(leaves[appraisal.target], next.shown.Chain[0])
		}
		fmt.Fprintf(a.stderr, "jurat: %s: %s gets a key to pin (level %s); jurat forward reaches level %s\n", printable(appraisal.target), printable(cmd[0]), attest.LevelPinned, attest.LevelSession)
	}
	dir, err := os.MkdirTemp("", "jurat-exec-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	trust, err := newTrust(dir)
	if err != nil {
		return err
	}
	if err := trust.write(slices.Concat(slices.Collect(maps.Values(leaves))...)); err != nil {
		return err
	}
	child := exec.Command(cmd[0], cmd[1:]...)
	child.Env = trust.environment(os.Environ())
	if watch > 0 {
		endsWithUs(child)
		defer a.watch(rp, trust, leaves, time.Duration(watch))()
	}
	return a.child(child)
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

// child runs a command to its end. Signals that a terminal sends reach the child by themselves; the others are passed on.
func (a *app) child(child *exec.Cmd) error {
	child.Stdin, child.Stdout, child.Stderr = a.stdin, a.stdout, a.stderr
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
