//go:build !noxds

package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/grpcads"
	"github.com/jurat-tls/jurat/xds/resource"
)

const builtWithXDS = true

// subscriber is a proxy as a control plane sees it: subscriber ADDR TEE POLICY NAME, until it is killed.
func subscriber() {
	if err := subscribe(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func subscribe(addr, spec, file, name string) error {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, now: time.Now}
	p, err := a.loadPolicy(file)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	tee, err := openTEE(spec, nil, log)
	if err != nil {
		return err
	}
	id, err := ratls.NewIdentity(context.Background(), tee, []string{name}, [32]byte{1}, ratls.IdentityOptions{})
	if err != nil {
		return err
	}
	endorser := new(endorsers)
	rp := (&relying{policy: p, endorser: endorser, now: a.now}).party(endorser)
	connector := ratls.NewMutualConnector(id, rp, "h2")
	tr, err := grpcads.New(addr, func(ctx context.Context, address string) (net.Conn, error) { return connector.Dial(ctx, address) }, grpcads.Config{})
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Kind: client.Delta, Node: client.Node{ID: name}, Random: rand.Float64, Backoff: client.Backoff{First: 10 * time.Millisecond, Most: 100 * time.Millisecond}}, tr, teller{new(sync.Mutex)})
	if err != nil {
		return err
	}
	for _, typ := range []string{resource.AttestationPolicy, resource.Cluster, resource.Listener} {
		if err := c.Subscribe(typ, []string{"*"}, 0); err != nil {
			return err
		}
	}
	return c.Run(context.Background())
}

// teller says what comes, and accepts it.
type teller struct{ *sync.Mutex }

func (t teller) Offer(u *client.Update) error {
	t.Lock()
	defer t.Unlock()
	for _, r := range u.Changed {
		fmt.Println(u.Type[strings.LastIndexByte(u.Type, '.')+1:], r.Name)
	}
	return nil
}

func (teller) Missing(string, []string) {}

// eventually runs a command until its output matches: eventually REGEXP COMMAND ARGS...
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	var out string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...)
		if out = ts.ReadFile("stdout") + ts.ReadFile("stderr"); want.MatchString(out) != neg {
			return
		}
	}
	ts.Fatalf("still not %q:\n%s", args[0], out)
}

func controlInBackground(ts *testscript.TestScript, _ bool, args []string) {
	inBackground(ts, args[:1], append([]string{"control", "--log", "json", "--listen", "127.0.0.1:0"}, args[1:]...))
}
