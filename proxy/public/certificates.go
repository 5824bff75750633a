package public

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	randv2 "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/jurat-tls/jurat/attest"
)

const (
	// renewAfter is the share of a certificate's life after which it is renewed, unless the CA says otherwise.
	renewAfter = 2.0 / 3
	// adviceEvery is how often a CA is asked when a certificate is to be renewed, where it does not say how often.
	adviceEvery = 6 * time.Hour
	// together is how many certificates are asked for at once.
	together = 4
	// awayRetry and awayLongest are the pauses after failures before a CA was asked.
	awayRetry   = 2 * time.Second
	awayLongest = time.Minute
)

// Certificates are those of a set of names, one for each. NewCertificates makes them, Run gets them and keeps them.
type Certificates struct {
	slots  map[string]*slot
	names  []string
	issuer *issuer
	now    func() time.Time
	log    *slog.Logger
	places chan struct{}
}

// slot is one name.
type slot struct {
	name string
	cert atomic.Pointer[tls.Certificate]
	wake chan struct{}
	seen certmagic.KeyInfo // of what is stored; Run's
	got  time.Time         // when a certificate was issued last, since the start; Run's

	mu     sync.Mutex
	status Status
	advice advice
}

// advice is when the CA wants a certificate to be renewed.
type advice struct {
	of    *x509.Certificate
	renew time.Time // zero for whenever
	ask   time.Time // when it is asked again
}

// Status is what is known of a name.
type Status struct {
	Name     string
	Leaf     *x509.Certificate // nil where there is none
	Obtained uint64            // certificates that were issued, since the start
	Failures uint64            // since the start
	Err      error             // of the last try; nil where that was none
	ErrAt    time.Time
	Next     time.Time // when the next try is due
}

// NewCertificates makes those of names, which storage keeps: DNS names in lower case, *.example too where a.DNS is. What is stored
// is served at once; the CA is asked by Run. now judges what is valid. The error is an *attest.Error with the code CodeConfigValue.
func NewCertificates(names []string, a ACME, storage *Storage, now func() time.Time, log *slog.Logger) (*Certificates, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	i, err := newIssuer(a, storage, log)
	if err != nil {
		return nil, err
	}
	c := &Certificates{slots: map[string]*slot{}, names: names, issuer: i, now: now, log: log, places: make(chan struct{}, together)}
	for _, n := range names {
		if n != strings.ToLower(n) || n == "" || strings.HasPrefix(n, "*.") && a.DNS == nil {
			return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "public.names", Got: fmt.Sprintf("%.100q", n), Want: "a DNS name in lower case, and *.example with dns-01 only"}
		}
		c.slots[n] = &slot{name: n, wake: make(chan struct{}, 1), status: Status{Name: n}}
	}
	if len(c.slots) == 0 {
		return nil, &attest.Error{Code: attest.CodeConfigMissing, Check: "public.names", Want: "a name"}
	}
	for _, s := range c.slots { // who takes the place of others is not to begin without; what is wrong is Run's
		if cert := c.kept(s.name); cert != nil {
			c.take(s, cert)
		}
	}
	return c, nil
}

// lookUp finds what is kept for a server name: for itself, or for all names beside it.
func lookUp[T any](all map[string]T, name string) (T, bool) {
	name = strings.ToLower(name)
	if v, ok := all[name]; ok {
		return v, true
	}
	_, parent, _ := strings.Cut(name, ".")
	v, ok := all["*."+parent]
	return v, ok
}

// Certificate answers the one for a server name. It is nil, without an error, where the name is none of ours. Where there is none that is
// valid, the error is an *attest.Error with the code CodeNoPublic: there is nothing else that the client could be shown.
func (c *Certificates) Certificate(name string) (*tls.Certificate, error) {
	s, ok := lookUp(c.slots, name)
	if !ok {
		return nil, nil
	}
	cert := s.cert.Load()
	if cert == nil {
		return nil, &attest.Error{Code: attest.CodeNoPublic, Check: "public", Subject: s.name, Got: "none yet"}
	}
	return current(cert, s.name, c.now())
}

// current is a certificate, unless it has expired. One that is not valid yet is for the clients' clocks to judge: ours is behind, or
// that of the CA is ahead.
func current(cert *tls.Certificate, name string, now time.Time) (*tls.Certificate, error) {
	if end := cert.Leaf.NotAfter; now.After(end) {
		return nil, &attest.Error{Code: attest.CodeNoPublic, Check: "public", Subject: name, Got: "one until " + end.UTC().Format(time.RFC3339)}
	}
	return cert, nil
}

// Challenge answers the certificate by which a CA finds out that a name is served here (RFC 8737), and an error where it has not asked.
func (c *Certificates) Challenge(ctx context.Context, name string) (*tls.Certificate, error) {
	name = strings.ToLower(name)
	if c.slots[name] == nil || !c.issuer.ALPN {
		return nil, &attest.Error{Code: attest.CodeNoPublic, Check: "public.challenge", Got: fmt.Sprintf("%.100q", name), Want: "a name of ours"}
	}
	return c.issuer.challenges.certificate(ctx, name)
}

// Outside answers false where the keys are made here, and what is stored is sealed; and true where replicas share them: what one of them
// shows of itself says nothing about the others.
func (c *Certificates) Outside() bool { return c.issuer.storage.shared.Load() }

// Status is that of every name, in the order of the configuration.
func (c *Certificates) Status() []Status {
	var all []Status
	for _, n := range c.names {
		s := c.slots[n]
		s.mu.Lock()
		all = append(all, s.status)
		s.mu.Unlock()
	}
	return all
}

// Run gets certificates, and others before they expire, until ctx ends.
func (c *Certificates) Run(ctx context.Context) {
	var work sync.WaitGroup
	for _, s := range c.slots {
		work.Go(func() { c.keep(ctx, s) })
	}
	work.Wait()
	c.issuer.transport.CloseIdleConnections()
}

// keep is Run for a name.
func (c *Certificates) keep(ctx context.Context, s *slot) {
	var failed int
	var failedAt time.Time
	var pause time.Duration // since then
	for ctx.Err() == nil {
		if c.changed(ctx, s) { // somebody else may have renewed it
			if err := c.reload(ctx, s); err != nil && ctx.Err() == nil {
				s.failed(err, c.now())
				c.log.Error("stored certificates", "name", s.name, "code", string(attest.CodeOf(err)), "error", err.Error())
			}
		}
		c.advise(ctx, s)
		due, forced := s.due()
		if now := c.now(); !now.Before(failedAt) { // a clock that was set back is not to hold us up
			due = later(due, failedAt.Add(pause))
		}
		s.mu.Lock()
		s.status.Next = due
		s.mu.Unlock()
		if wait := due.Sub(c.now()); wait > 0 {
			// A machine that was suspended wakes with a clock far ahead of its timers.
			timer := time.NewTimer(min(wait, c.issuer.Poll))
			select {
			case <-ctx.Done():
			case <-timer.C:
			case <-s.wake:
				failed, pause = 0, 0
			}
			timer.Stop()
			continue
		}
		var patience time.Duration
		// Every other time the CA is not told what is replaced: it refuses where it does not know of that, or our account is another one now.
		err := c.obtain(ctx, s, forced, failed%2 == 0, &patience)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failed, pause = 0, 0
			continue
		}
		pause, failedAt = max(c.pause(s, failed, err), patience), c.now()
		failed++
		s.failed(err, failedAt)
		c.log.Error("no new public certificate", "name", s.name, "code", string(attest.CodeOf(err)), "error", err.Error(), "next", failedAt.Add(pause).UTC().Format(time.RFC3339), "until", s.until())
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// unasked is an error from before a CA was asked for anything.
type unasked struct{ error }

func (u unasked) Unwrap() error { return u.error }

// pause is how long is waited after failures, of which one more is err. It is not longer than a quarter of what is left of a
// certificate: some live for hours.
func (c *Certificates) pause(s *slot, failed int, err error) time.Duration {
	pause, longest := c.issuer.Retry, c.issuer.Longest
	if errors.As(err, new(unasked)) {
		pause, longest = min(pause, awayRetry), min(longest, awayLongest)
	}
	for range min(failed, 10) {
		pause *= 3
	}
	pause = min(pause, longest)
	if cert := s.cert.Load(); cert != nil {
		if left := cert.Leaf.NotAfter.Sub(c.now()); left > 0 {
			pause = min(pause, max(left/4, c.issuer.Retry))
		}
	}
	return pause + time.Duration(randv2.Int64N(int64(pause)/8+1)) // of many that have failed together, not all come back together
}

func (s *slot) failed(err error, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Failures++
	s.status.Err, s.status.ErrAt = err, at
}

func (s *slot) until() string {
	if cert := s.cert.Load(); cert != nil {
		return cert.Leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	return "none"
}

// due is when a certificate is to be got: at once where there is none. It is forced where only the CA says so.
func (s *slot) due() (at time.Time, forced bool) {
	cert := s.cert.Load()
	if cert == nil {
		return time.Time{}, false
	}
	leaf := cert.Leaf
	at = leaf.NotBefore.Add(time.Duration(float64(leaf.NotAfter.Sub(leaf.NotBefore)) * renewAfter))
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.advice; a.of == leaf && !a.renew.IsZero() && a.renew.Before(at) {
		return a.renew, true
	}
	return at, false
}

// advise asks the CA when a certificate is to be renewed. It may want that soon: because it has to revoke it.
func (c *Certificates) advise(ctx context.Context, s *slot) {
	cert := s.cert.Load()
	if cert == nil {
		return
	}
	s.mu.Lock()
	a := s.advice
	s.mu.Unlock()
	if a.of != cert.Leaf {
		a = advice{}
	} else if now := c.now(); now.Before(a.ask) && a.ask.Before(now.Add(2*maxPatience)) { // unless a clock was set back
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	renew, ask, err := c.issuer.advice(ctx, cert.Leaf)
	if now := c.now(); ask.IsZero() || ask.After(now.Add(maxPatience)) {
		ask = now.Add(min(adviceEvery, max(cert.Leaf.NotAfter.Sub(now)/4, c.issuer.Poll)))
	}
	if !renew.IsZero() { // a CA that says so of whatever it issues would have us ask without an end
		life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)
		renew = later(renew, s.got.Add(min(c.issuer.Longest, life/4)))
	}
	if err != nil {
		renew = a.renew
		c.log.Debug("no advice on renewal", "name", s.name, "error", printable(err.Error()))
	}
	s.mu.Lock()
	s.advice = advice{cert.Leaf, renew, ask}
	s.mu.Unlock()
}

// obtain has a certificate issued, unless somebody else has done that meanwhile.
func (c *Certificates) obtain(ctx context.Context, s *slot, forced, replaces bool, patience *time.Duration) error {
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, patienceKey{}, patience), answerLimit)
	defer cancel()
	if err := c.reach(ctx, s); err != nil {
		return unasked{err}
	}
	old := s.cert.Load()
	err := c.issuer.library(func(config *certmagic.Config) error {
		if old == nil {
			return config.ObtainCertSync(ctx, s.name)
		}
		if replaces {
			ctx = context.WithValue(ctx, replacesKey{}, old.Leaf)
		}
		return config.RenewCertSync(ctx, s.name, forced)
	})
	if err != nil {
		if gone := c.reach(ctx, s); attest.CodeOf(gone) == attest.CodeStorageAway {
			return gone
		}
		return describe(err, s.name)
	}
	if err := c.reload(ctx, s); err != nil {
		return err
	}
	if due, _ := s.due(); !due.After(c.now()) {
		return &attest.Error{
			Code: attest.CodePublicFailed, Check: "public.acme", Subject: s.name, Got: "a certificate until " + s.until(),
			Want: "one that is of use at " + c.now().UTC().Format(time.RFC3339), Hint: "compare the clocks of this machine and the CA",
		}
	}
	s.got = c.now()
	s.mu.Lock()
	s.status.Obtained++
	s.status.Err, s.status.ErrAt = nil, time.Time{}
	s.mu.Unlock()
	return nil
}

// reach reports why the storage can't say what there is: the library asks on then, and what it answers has no code.
func (c *Certificates) reach(ctx context.Context, s *slot) error {
	_, err := c.issuer.storage.values.Stat(ctx, certmagic.StorageKeys.SiteCert(c.issuer.key, s.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// reload takes what is stored, where that is another certificate. What is stored and can't be used is removed: otherwise it would
// stand in the way of what could be.
func (c *Certificates) reload(ctx context.Context, s *slot) error {
	cert, err := c.stored(ctx, s.name)
	if err != nil {
		cert, err = c.discard(ctx, s.name)
	}
	if cert == nil {
		return err
	}
	c.take(s, cert)
	return nil
}

// take has a certificate served.
func (c *Certificates) take(s *slot, cert *tls.Certificate) {
	if old := s.cert.Load(); old != nil && (old.Leaf.Equal(cert.Leaf) || cert.Leaf.NotBefore.Before(old.Leaf.NotBefore) && !c.now().After(old.Leaf.NotAfter)) {
		return // somebody may have brought an older one back; one that ends sooner may be newer
	}
	s.cert.Store(cert)
	if served := c.issuer.storage.served; served != nil {
		served.Store(c.issuer.key+" "+s.name, cert)
	}
	s.mu.Lock()
	s.status.Leaf = cert.Leaf
	s.mu.Unlock()
	c.log.Info("new public certificate", "name", s.name, "until", s.until(), "serial", cert.Leaf.SerialNumber.Text(16), "issuer", printable(cert.Leaf.Issuer.String()))
}

// changed reports whether something else is stored than the last time.
func (c *Certificates) changed(ctx context.Context, s *slot) bool {
	is, err := c.issuer.storage.values.Stat(ctx, certmagic.StorageKeys.SiteCert(c.issuer.key, s.name))
	was := s.seen
	if err == nil {
		s.seen = is
	}
	return err == nil && (!is.Modified.Equal(was.Modified) || is.Size != was.Size)
}

// kept answers the certificate that there is without waiting for another machine, which may be away; nil for none.
func (c *Certificates) kept(name string) (cert *tls.Certificate) {
	if served := c.issuer.storage.served; served != nil {
		was, _ := served.Load(c.issuer.key + " " + name)
		cert, _ = was.(*tls.Certificate)
	} else {
		cert, _ = c.stored(context.Background(), name)
	}
	return cert
}

// stored answers the certificate that is stored; nil for none.
func (c *Certificates) stored(ctx context.Context, name string) (*tls.Certificate, error) {
	values, keys := c.issuer.storage.values, certmagic.StorageKeys
	chain, err := values.Load(ctx, keys.SiteCert(c.issuer.key, name))
	var key []byte
	if err == nil {
		key, err = values.Load(ctx, keys.SitePrivateKey(c.issuer.key, name))
	}
	if err == nil { // without it the library renews nothing
		if _, err = values.Load(ctx, keys.SiteMeta(c.issuer.key, name)); errors.Is(err, fs.ErrNotExist) {
			err = nil // to the library that is as if there were nothing
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return pair(chain, key, name)
}

// discard removes what can't be used, as long as that is not for want of what opens it. It answers what can be used by now.
func (c *Certificates) discard(ctx context.Context, name string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit) // whoever has the lock, and keeps it, is not to keep us from all else
	defer cancel()
	values := c.issuer.storage.values
	lock := "issue_cert_" + name // the library's: what another process is writing is of two certificates
	if err := values.Lock(ctx, lock); err != nil {
		return nil, err
	}
	defer func() { _ = values.Unlock(ctx, lock) }()
	cert, broken := c.stored(ctx, name)
	if attest.CodeOf(broken) != attest.CodeStoreBroken {
		return cert, broken
	}
	probe := "probe/" + rand.Text()
	defer func() { _ = values.Delete(context.WithoutCancel(ctx), probe) }()
	failed := values.Store(ctx, probe, []byte(probe))
	if _, err := values.Load(ctx, probe); err != nil {
		return nil, cmp.Or(failed, err)
	}
	c.log.Warn("what is stored for a public certificate can't be used, and is removed", "name", name, "code", string(attest.CodeStoreBroken), "error", broken.Error())
	return nil, values.Delete(ctx, certmagic.StorageKeys.CertsSitePrefix(c.issuer.key, name))
}

// pair makes a certificate of what is stored, or in files. It has to be for the name.
func pair(chain, key []byte, name string) (*tls.Certificate, error) {
	bad := func(err error) error {
		return &attest.Error{Code: attest.CodeStoreBroken, Check: "public", Subject: name, Want: "a certificate and its key", Err: err}
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, bad(err)
	}
	if err := covers(cert.Leaf, name); err != nil {
		return nil, bad(err)
	}
	return &cert, nil
}

// covers reports whether a certificate is for a name, which may be *.example.
func covers(leaf *x509.Certificate, name string) error {
	if !strings.HasPrefix(name, "*.") {
		return leaf.VerifyHostname(name)
	}
	if !slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return strings.EqualFold(n, name) }) {
		return fmt.Errorf("it is for %.200q", leaf.DNSNames)
	}
	return nil
}

// Revoke has the certificate of a name revoked, for a reason of RFC 5280 section 5.3.1, and another one issued under another key.
func (c *Certificates) Revoke(ctx context.Context, name string, reason int) error {
	s := c.slots[name]
	if s == nil {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "public.names", Got: fmt.Sprintf("%.100q", name), Want: "a name of ours"}
	}
	err := c.issuer.library(func(config *certmagic.Config) error { return config.RevokeCert(ctx, name, reason, false) })
	if err != nil {
		return describe(err, name)
	}
	s.cert.Store(nil)
	s.mu.Lock()
	s.status.Leaf = nil
	s.mu.Unlock()
	c.log.Warn("public certificate revoked", "name", name, "reason", reason)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}
