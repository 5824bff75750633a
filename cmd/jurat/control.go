//go:build !noxds

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/proxy/admin"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
	"github.com/jurat-tls/jurat/xds/short"
)

// controlCommands are those of a control plane.
func (a *app) controlCommands() map[string]func(context.Context, []string) error {
	return map[string]func(context.Context, []string) error{"control": a.control}
}

// controlConfig is what a control plane runs.
type controlConfig struct {
	dir, state, listen, admin string
	local                     list // NAME=unix:/path
	tee                       string
	names                     list
	lifetime                  time.Duration
	require                   *policy.Policy
	jsonLog                   bool
	endorsers                 endorserFlags
}

// digest is the digest of the measured configuration: who the control plane is, and whom it lets in at all.
func (c *controlConfig) digest() ([32]byte, error) {
	raw, err := json.Marshal(map[string]any{"control": 1, "names": c.names, "lifetime": c.lifetime, "require": c.require.ID(), "local": c.local})
	return sha256.Sum256(raw), err
}

// control runs a control plane, or asks one.
func (a *app) control(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "status":
			return a.controlStatus(ctx, args[1:])
		case "plan":
			return a.controlPlan(ctx, args[1:])
		case "history":
			return a.controlHistory(ctx, args[1:])
		}
	}
	fs := a.flags("control --dir DIR --state DIR --listen ADDR -p proxies.yaml [flags] | control --dir DIR --check | control status|plan|history [flags]")
	c := &controlConfig{}
	var require, binding, logFormat string
	fs.StringVar(&c.dir, "dir", "", "`directory` with groups.yaml, policies and resources (docs/control.md); it is watched")
	fs.StringVar(&c.state, "state", "", "`directory` that keeps what was accepted, and the history")
	fs.StringVar(&c.listen, "listen", "", "`ADDR` to listen on: host:port, unix:/path or systemd:NAME")
	fs.StringVar(&require, "policy", "", "appraisal policy `FILE` that every proxy has to meet")
	fs.StringVar(&require, "p", "", "short for --policy")
	fs.Var(&c.local, "local", "`NAME=unix:/path` of a socket whose clients are not appraised, and get what the group with local: NAME gets; repeat for more")
	fs.StringVar(&c.admin, "admin", "", "`ADDR` for status, plan and history, and for CSDS: unix:/path")
	fs.StringVar(&c.tee, "tee", "auto", teeUsage())
	fs.Var(&c.names, "name", "`NAME` or IP address that proxies connect by; repeat for more (default: localhost and the host of --listen)")
	fs.DurationVar(&c.lifetime, "lifetime", ratls.DefaultLifetime, "validity of a leaf certificate; it is renewed after half of it")
	fs.StringVar(&binding, "unsafe-binding", "", unsafeBindingUsage)
	check := fs.Bool("check", false, "check the directory and stop")
	asJSON := fs.Bool("json", false, "write what --check found as JSON")
	fs.StringVar(&logFormat, "log", "text", "log `format`: text or json")
	c.endorsers.register(fs)
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return usageError("control takes status, plan, history or flags, got %.40q", rest[0])
	}
	if c.jsonLog, err = logJSON(logFormat); err != nil {
		return err
	}
	if c.dir == "" {
		return usageError("control needs --dir DIR")
	}
	if *check {
		return a.checkDirectory(c.dir, *asJSON)
	}
	if c.state == "" || c.listen == "" || require == "" {
		return usageError("control needs --state DIR, --listen ADDR and -p proxies.yaml, or --check")
	}
	if c.require, err = a.loadPolicy(require); err != nil {
		return err
	}
	if c.require, err = a.tolerate(c.require, binding); err != nil {
		return err
	}
	if err := c.complete(); err != nil {
		return err
	}
	return a.runControl(ctx, c)
}

func (c *controlConfig) complete() error {
	if err := checkTEE(c.tee); err != nil {
		return err
	}
	if err := ratls.CheckLifetime(c.lifetime); err != nil {
		return err
	}
	if len(c.names) == 0 {
		c.names = list{"localhost", "127.0.0.1", "::1"}
		if host, _, err := net.SplitHostPort(c.listen); err == nil && host != "" && !net.ParseIP(host).IsUnspecified() {
			c.names = append(c.names, host)
		}
	}
	for _, n := range c.names {
		if err := ratls.CheckName(n); err != nil {
			return err
		}
	}
	slices.Sort(c.names)
	c.names = slices.Compact(c.names)
	for _, l := range c.local {
		if name, address, ok := strings.Cut(l, "="); !ok || name == "" || !strings.HasPrefix(address, "unix:") {
			return usageError("--local %.100q is not NAME=unix:/path", l)
		}
	}
	if c.admin != "" && !strings.HasPrefix(c.admin, "unix:") {
		return usageError("--admin %.100q is not unix:/path", c.admin)
	}
	return config.CheckAddress(c.listen)
}

// decodeResources reads a file of resources, or of the short form.
func decodeResources(file string, raw []byte) ([]control.Document, error) {
	var docs []envoy.Document
	parsed, err := strictyaml.Stream(file, raw)
	switch {
	case err != nil:
	case len(parsed) == 1 && short.Is(parsed[0]):
		docs, err = short.Load(parsed[0])
	default:
		docs, err = envoy.Load(file, raw)
	}
	if err != nil {
		return nil, err
	}
	all := make([]control.Document, 0, len(docs))
	for _, d := range docs {
		all = append(all, control.Document{Resource: d.Resource, Position: d.Position})
	}
	return all, nil
}

// checkResources finds what a proxy of ours would refuse of what its group gets, or wait for without end.
func checkResources(_ string, all []resource.Resource) []control.Finding {
	in := envoy.Input{Resources: envoy.Set{}}
	for _, r := range all {
		in.Resources.Add(r)
	}
	out := envoy.Translate(in)
	var found []control.Finding
	for k, err := range out.Problems {
		found = append(found, control.Finding{Type: k.Type, Name: k.Name, Err: err})
	}
	for k, waits := range out.Warming {
		for _, w := range waits {
			// A policy may be one of the proxy's own file.
			if _, there := in.Resources[w]; !there && w.Type != resource.AttestationPolicy && w.Type != resource.ReferenceValues {
				found = append(found, control.Finding{Type: k.Type, Name: k.Name, Err: &attest.Error{
					Code: attest.CodeConfigMissing, Check: "xds.directory", Got: fmt.Sprintf("a reference to %s %.100q", w.Type[strings.LastIndexByte(w.Type, '.')+1:], w.Name), Want: "a resource of that name for the group",
				}})
			}
		}
	}
	slices.SortFunc(found, func(a, b control.Finding) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name), strings.Compare(a.Err.Error(), b.Err.Error()))
	})
	return found
}

func (a *app) checkDirectory(dir string, asJSON bool) error {
	files, err := control.ReadDirectory(dir)
	if err != nil {
		return err
	}
	s, err := control.Validate(files, decodeResources, checkResources)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.stdout, s)
	}
	n := 0
	for _, count := range s.Resources {
		n += count
	}
	_, err = fmt.Fprintf(a.stdout, "ok: %d groups, %d policies, %d resources in %d files\n", len(s.Groups), len(s.Policies), n, s.Files)
	return err
}

// runControl serves until ctx ends.
func (a *app) runControl(ctx context.Context, c *controlConfig) error {
	log := newLogger(a.stderr, c.jsonLog, new(slog.LevelVar))
	reloads := make(chan os.Signal, 1)
	signal.Notify(reloads, syscall.SIGHUP)
	defer signal.Stop(reloads)
	plane, err := control.Open(c.dir, c.state, decodeResources, c.require, control.Options{Check: checkResources, Now: a.now, Log: log})
	if err != nil {
		return err
	}
	defer plane.Close()
	endorser, err := c.endorsers.endorser(a)
	if err != nil {
		return err
	}
	tee, err := openTEE(c.tee, endorser, log)
	if err != nil {
		return err
	}
	if tee.simulated {
		log = log.With("platform", "SIMULATED")
	}
	digest, err := c.digest()
	if err != nil {
		return err
	}
	first, cancel := context.WithTimeout(ctx, quoteTimeout)
	defer cancel()
	id, err := ratls.NewIdentity(first, tee, c.names, digest, ratls.IdentityOptions{Lifetime: c.lifetime, Now: a.now, OnRenew: func(leaf *ratls.Leaf, err error) {
		if err != nil {
			log.Error("no new leaf", "code", string(attest.CodeOf(err)), "error", err.Error())
			return
		}
		log.Info("new leaf", "names", []string(c.names), "until", leaf.Certificate.NotAfter.UTC().Format(time.RFC3339), "config", fmt.Sprintf("%x", digest))
	}})
	if err != nil {
		return err
	}
	defer id.Close()
	server := attested.NewServer(c.handshake(a, id, endorser, log), plane.Handlers(), attested.Options{
		OnHandshake: func(remote net.Addr, _ attested.Conn, err error) {
			if err != nil {
				log.Info("handshake failed", "peer", remote.String(), "code", string(attest.CodeOf(err)), "error", err.Error())
			}
		},
	})
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var work sync.WaitGroup
	defer work.Wait()
	defer server.Stop()
	defer stop(nil)
	work.Go(func() { endorser.run(ctx) })
	work.Go(func() { id.Run(ctx) })
	work.Go(func() { plane.Run(ctx) })
	serve := func(ln net.Listener, name string) {
		work.Go(func() {
			var err error
			if name == "" {
				err = server.Serve(ln)
			} else {
				err = server.ServeLocal(ln, name)
			}
			if err != nil {
				stop(&attest.Error{Code: attest.CodeListen, Check: "listen", Subject: ln.Addr().String(), Err: err})
			}
		})
	}
	var sockets listeners
	ln, err := sockets.open(c.listen)
	if err != nil {
		return err
	}
	serve(ln, "")
	log.Info("listening", "address", ln.Addr().String(), "directory", c.dir, "config", fmt.Sprintf("%x", digest))
	for _, l := range c.local {
		name, address, _ := strings.Cut(l, "=")
		ln, err := admin.Listen(ctx, address, admin.Options{}) // for its owner alone
		if err != nil {
			return err
		}
		serve(ln, name)
	}
	if c.admin != "" {
		ln, err := admin.Listen(ctx, c.admin, admin.Options{})
		if err != nil {
			return err
		}
		api, stopStreams := controlAdmin(plane, log)
		work.Go(func() { _ = api.Serve(ln) })
		defer stopStreams()
		defer api.Close()
	}
	work.Go(func() { watchdog(ctx, func() bool { return a.now().Before(id.Leaf().Certificate.NotAfter) }) })
	notify(daemon.SdNotifyReady)
	for {
		select {
		case <-ctx.Done():
			notify(daemon.SdNotifyStopping)
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return cause
			}
			return nil
		case <-reloads:
			_ = plane.Reload("SIGHUP") // said by its log
		}
	}
}

func (c *controlConfig) handshake(a *app, id *ratls.Identity, endorser *endorsers, log *slog.Logger) attested.Handshake {
	rp := (&relying{policy: c.require, endorser: endorser, tpmRoots: endorser.tpm, now: a.now}).party(endorser)
	opts := sessionConfig{}.options(a)
	opts.Pace = func() time.Duration { return halfOf(c.require.EvidenceAge()) }
	opts.OnReattest = reattested(log)
	acceptor := ratls.NewMutualAcceptor(id, rp, "h2").WithSession(opts)
	return func(ctx context.Context, raw net.Conn) (attested.Conn, error) {
		conn, err := acceptor.Handshake(ctx, raw)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}

// controlClient asks a control plane that runs.
type controlClient struct {
	admin  string
	asJSON bool
}

func (a *app) controlFlags(synopsis string) (*flag.FlagSet, *controlClient) {
	fs := a.flags(synopsis)
	c := new(controlClient)
	fs.StringVar(&c.admin, "admin", "", "`ADDR` that the control plane has as --admin: unix:/path")
	fs.BoolVar(&c.asJSON, "json", false, "write JSON")
	return fs, c
}

func (c *controlClient) ask(ctx context.Context, method, path string, body []byte, into any) error {
	socket, ok := strings.CutPrefix(c.admin, "unix:")
	if !ok {
		return usageError("--admin unix:/path is required: that of the control plane")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	r, err := http.NewRequestWithContext(ctx, method, "http://control"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	if err != nil {
		return &attest.Error{Code: attest.CodeUnreachable, Check: "control", Subject: c.admin, Err: err, Hint: "start jurat control with --admin " + c.admin}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, raw)
	}
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return &attest.Error{Code: attest.CodeInternal, Check: "control", Subject: c.admin, Err: err}
	}
	return nil
}

// controlStatus shows what a control plane does. The exit code says whether the directory is what is served.
func (a *app) controlStatus(ctx context.Context, args []string) error {
	fs, c := a.controlFlags("control status --admin unix:/path [--json]")
	if rest, err := a.parse(fs, args); err != nil {
		return err
	} else if len(rest) != 0 {
		return usageError("control status takes no argument, got %.40q", rest[0])
	}
	var s control.Status
	if err := c.ask(ctx, http.MethodGet, "/status", nil, &s); err != nil {
		return err
	}
	if c.asJSON {
		if err := writeJSON(a.stdout, s); err != nil {
			return err
		}
		return problemExit(s.Problem)
	}
	p := &printer{w: a.stdout}
	p.line("change %d of %s, from %s", s.Serial, s.Time.UTC().Format(time.RFC3339), printable(s.Directory))
	for _, g := range s.Groups {
		n := 0
		for _, count := range g.Resources {
			n += count
		}
		p.line("group %s: %d proxies, %d resources, policy %s", printable(g.Name), g.Proxies, n, printable(cmp.Or(g.Policy, "none (local)")))
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	if len(s.Proxies) > 0 {
		fmt.Fprintf(w, "\nPROXY\tGROUP\tSTATE\tPLATFORM\tTCB\tEPOCH\tOPEN\tREFUSED\tREASON\n")
	}
	for _, x := range s.Proxies {
		platform := strings.TrimSpace(strings.ToUpper(x.TEE) + " " + x.Generation)
		if x.Simulated {
			platform = "SIMULATED " + platform
		}
		count := func(n *uint64) string {
			if n == nil {
				return "-"
			}
			return fmt.Sprint(*n)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", printable(cmp.Or(x.ID, strings.Join(x.Names, ","), x.Address)), printable(x.Group), x.Standing, printable(cmp.Or(platform, "local")),
			printable(tcbText(x)), x.Epoch, count(x.Open), count(x.Refused), printable(x.Reason))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Refused) > 0 {
		p.line("")
		p.line("refused")
	}
	for _, r := range s.Refused {
		p.line("  %s  %s  %s", r.Time.UTC().Format(time.RFC3339), printable(cmp.Or(r.ID, strings.Join(r.Names, ","), r.Address)), printable(r.Reason))
	}
	for _, x := range s.Problem {
		fmt.Fprintf(a.stderr, "jurat: not served: %s\n", printable(x.Text))
	}
	return problemExit(s.Problem)
}

func tcbText(p control.Proxy) string {
	if p.TCBStatus != "" {
		return p.TCBStatus
	}
	var parts []string
	for name, v := range p.TCB {
		parts = append(parts, fmt.Sprintf("%s=%d", name, v))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// problemExit is the exit code that goes with what is wrong.
func problemExit(all []control.Problem) error {
	if len(all) == 0 {
		return nil
	}
	return exitError(all[0].Code.Exit())
}

// controlPlan shows what taking a directory would do.
func (a *app) controlPlan(ctx context.Context, args []string) error {
	fs, c := a.controlFlags("control plan --admin unix:/path [--json] DIR")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return usageError("control plan needs one DIR: what the directory is to be")
	}
	files, err := control.ReadDirectory(filepath.Clean(rest[0]))
	if err != nil {
		return err
	}
	raw, err := json.Marshal(files)
	if err != nil {
		return err
	}
	var plan control.Plan
	if err := c.ask(ctx, http.MethodPost, "/plan", raw, &plan); err != nil {
		return err
	}
	if c.asJSON {
		if err := writeJSON(a.stdout, plan); err != nil {
			return err
		}
		return problemExit(plan.Problem)
	}
	for _, x := range plan.Problem {
		fmt.Fprintf(a.stderr, "jurat: can't be taken: %s\n", printable(x.Text))
	}
	if len(plan.Problem) > 0 {
		return problemExit(plan.Problem)
	}
	p := &printer{w: a.stdout}
	p.line("%d resources change", len(plan.Changes))
	for _, d := range plan.Changes {
		p.line("  %s", printable(differenceText(d)))
	}
	cuts := 0
	for _, x := range plan.Proxies {
		if x.To == "" {
			cuts++
		}
	}
	p.line("%d proxies connected here would be cut, %d would come to another group", cuts, len(plan.Proxies)-cuts)
	cut := func(x control.Cut) string {
		who := cmp.Or(x.ID, strings.Join(x.Names, ","), x.Address)
		if x.To != "" {
			return fmt.Sprintf("%s (%s %s): from group %s to %s", who, x.Vendor, x.Generation, x.From, x.To)
		}
		return fmt.Sprintf("%s (%s %s, group %s): %s", who, x.Vendor, x.Generation, x.From, x.Reason)
	}
	for _, x := range plan.Proxies {
		p.line("  %s", printable(cut(x)))
	}
	for _, x := range plan.Policies {
		p.line("policy %s would refuse %d of the proxies connected here that it accepts now", printable(x.Name), len(x.Refuses))
		for _, r := range x.Refuses {
			p.line("  %s", printable(cut(r)))
		}
	}
	return nil
}

func differenceText(d control.Difference) string {
	text := fmt.Sprintf("%s %s %s", d.Op, d.Type[strings.LastIndexByte(d.Type, '.')+1:], d.Name)
	if d.Group != "" {
		text += " of group " + d.Group
	}
	return text
}

// controlHistory shows the last changes: of a control plane that runs, or of a state directory.
func (a *app) controlHistory(ctx context.Context, args []string) error {
	fs, c := a.controlFlags("control history --admin unix:/path | --state DIR [--json]")
	n := fs.Int("n", 20, "how `many`, the last ones")
	state := fs.String("state", "", "`directory` with the state, where no control plane runs; all of its history is checked")
	if rest, err := a.parse(fs, args); err != nil {
		return err
	} else if len(rest) != 0 {
		return usageError("control history takes no argument, got %.40q", rest[0])
	}
	if *n < 1 || (*state != "") == (c.admin != "") {
		return usageError("control history needs one of --admin and --state, and -n above 0")
	}
	var all []control.Change
	var err error
	if *state != "" {
		all, err = control.History(*state, *n)
	} else {
		err = c.ask(ctx, http.MethodGet, fmt.Sprintf("/history?n=%d", *n), nil, &all)
	}
	if err != nil {
		return err
	}
	if c.asJSON {
		return writeJSON(a.stdout, all)
	}
	p := &printer{w: a.stdout}
	for _, x := range all {
		p.line("%d  %s  %d  %s  by %s", x.Index, x.Time.UTC().Format(time.RFC3339), x.Serial, x.Digest, printable(x.Who))
		for _, d := range x.Resource {
			p.line("    %s", printable(differenceText(d)))
		}
		if x.More > 0 {
			p.line("    and %d more", x.More)
		}
	}
	return nil
}
