package public

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Files is a certificate that somebody brings: its key was outside of the TEE. NewFiles makes one, Run looks whether there is another one.
type Files struct {
	names []string
	read  func() (chain, key []byte, err error)
	now   func() time.Time
	log   *slog.Logger
	every time.Duration
	cert  atomic.Pointer[brought]

	mu         sync.Mutex
	chain, key []byte // as they were read last
	failures   uint64
	obtained   uint64
	err        error
	errAt      time.Time
}

// brought is a certificate with the names that it is served for.
type brought struct {
	*tls.Certificate
	names []string
	index map[string]string
}

// NewFiles reads a certificate, in PEM with its chain, and its key. names are those that it is served for, nil for the DNS names in it;
// it has to be for them. The error is an *attest.Error.
func NewFiles(names []string, read func() (chain, key []byte, err error), now func() time.Time, log *slog.Logger) (*Files, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Files{names: names, read: read, now: now, log: log, every: time.Minute}
	if err := f.look(); err != nil {
		return nil, err
	}
	return f, nil
}

// look reads the files. Where something is wrong with them the certificate stays as it is.
func (f *Files) look() error {
	chain, key, err := f.read()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if bytes.Equal(chain, f.chain) && bytes.Equal(key, f.key) {
		f.err, f.errAt = nil, time.Time{}
		return nil
	}
	names := f.names
	bad := func(err error) error {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "public.files", Want: "a certificate in PEM that is for the names, and its key", Err: err}
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return bad(err)
	}
	if names == nil {
		names = cert.Leaf.DNSNames
	}
	if len(names) == 0 {
		return bad(nil)
	}
	index := map[string]string{}
	for _, n := range names {
		if err := covers(cert.Leaf, n); err != nil {
			return bad(err)
		}
		index[strings.ToLower(n)] = n
	}
	f.chain, f.key, f.err, f.errAt = chain, key, nil, time.Time{}
	f.obtained++
	f.cert.Store(&brought{&cert, names, index})
	f.log.Info("new public certificate", "names", names, "until", cert.Leaf.NotAfter.UTC().Format(time.RFC3339), "serial", cert.Leaf.SerialNumber.Text(16), "issuer", printable(cert.Leaf.Issuer.String()))
	return nil
}

// Certificate answers what Certificates.Certificate does.
func (f *Files) Certificate(name string) (*tls.Certificate, error) {
	b := f.cert.Load()
	n, ok := lookUp(b.index, name)
	if !ok {
		return nil, nil
	}
	return current(b.Certificate, n, f.now())
}

// Challenge answers an error: no CA asks.
func (f *Files) Challenge(_ context.Context, name string) (*tls.Certificate, error) {
	return nil, &attest.Error{Code: attest.CodeNoPublic, Check: "public.challenge", Got: printable(name), Want: "a name that ACME is for"}
}

// Outside answers true.
func (f *Files) Outside() bool { return true }

// Status is that of every name.
func (f *Files) Status() []Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.cert.Load()
	var all []Status
	for _, n := range b.names {
		all = append(all, Status{Name: n, Leaf: b.Leaf, Obtained: f.obtained, Failures: f.failures, Err: f.err, ErrAt: f.errAt})
	}
	return all
}

// Run looks for other files every minute, until ctx ends.
func (f *Files) Run(ctx context.Context) {
	ticker := time.NewTicker(f.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := f.look(); err != nil {
			f.mu.Lock()
			f.failures++
			f.err, f.errAt = err, f.now()
			f.mu.Unlock()
			f.log.Error("the public certificate in the files stays as it was", "code", string(attest.CodeOf(err)), "error", err.Error())
		}
	}
}
