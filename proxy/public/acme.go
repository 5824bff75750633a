package public

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/jurat-tls/jurat/attest"
)

// KeyType is what the keys of certificates are.
type KeyType string

// The kinds of keys that CAs certify. "" is P256.
const (
	P256    KeyType = "p256"
	P384    KeyType = "p384"
	RSA2048 KeyType = "rsa2048"
	RSA4096 KeyType = "rsa4096"
)

// Account says whose certificates they are.
type Account struct {
	Email string // that the CA may write to; may be ""
	// External binds the account to one that was made elsewhere (RFC 8555 section 7.3.4): an id, and the key that came with it, in base64
	// without padding; both "" for none.
	ExternalID, ExternalKey string
}

// ACME says who issues certificates, and how it finds out that the names are ours.
type ACME struct {
	Directory string         // URL of the CA
	Roots     *x509.CertPool // that the CA's own certificate has to lead to; nil for those of the system
	Account   Account
	KeyType   KeyType
	Profile   string // of the CA's; "" for its default

	// The challenges that are solved, one at least. Of several the CA's answer decides.
	ALPN   bool                                       // tls-alpn-01, by whoever accepts connections
	HTTP   string                                     // the address of http-01, which is open while a challenge is pending; "" for none
	Listen func(address string) (net.Listener, error) // opens HTTP
	DNS    DNS                                        // dns-01; nil for none
	Settle time.Duration                              // how long DNS takes until all servers of the zone have a record; 0 for no time

	Retry   time.Duration // the pause after a first failure, which is three times as long after each further one; 0 means 2 min
	Longest time.Duration // pause between failures, unless the CA wants a longer one; 0 means 1 h
	Poll    time.Duration // how often is looked for what is due; 0 means 1 min
}

// answerLimit bounds how long an issuance may take, bodyLimit what the CA may say at once, and sayLimit what it may say meanwhile: of an
// order's authorizations each is kept, and takes many times as much in memory.
const (
	answerLimit = 10 * time.Minute
	bodyLimit   = 64 << 10
	sayLimit    = 1 << 20
)

// issuer implements certmagic.Issuer, certmagic.Revoker and ARI over acmez.
type issuer struct {
	ACME
	keys       certmagic.KeyGenerator
	key        string // in storage
	account    string // key of the account in storage
	storage    *Storage
	challenges *challenges
	solvers    map[string]acmez.Solver
	transport  *http.Transport
	log        *slog.Logger
}

func newIssuer(a ACME, storage *Storage, log *slog.Logger) (*issuer, error) {
	bad := func(field, got, want string) error {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "public.acme", Subject: field, Got: fmt.Sprintf("%.100q", got), Want: want}
	}
	u, err := url.Parse(a.Directory)
	if err != nil {
		u = new(url.URL)
	}
	if u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, bad("directory", u.Redacted(), "an https URL, without a user")
	}
	kinds := map[KeyType]certmagic.KeyType{P256: certmagic.P256, P384: certmagic.P384, RSA2048: certmagic.RSA2048, RSA4096: certmagic.RSA4096}
	kind, ok := kinds[cmp.Or(a.KeyType, P256)]
	if !ok {
		return nil, bad("key_type", string(a.KeyType), "p256, p384, rsa2048 or rsa4096")
	}
	if (a.Account.ExternalID == "") != (a.Account.ExternalKey == "") {
		return nil, bad("external_account", a.Account.ExternalID, "an id and a key")
	}
	if storage == nil || storage.values == nil {
		return nil, &attest.Error{Code: attest.CodeInternal, Check: "public.acme", Got: "no storage"}
	}
	a.Retry, a.Longest, a.Poll = cmp.Or(a.Retry, 2*time.Minute), cmp.Or(a.Longest, time.Hour), cmp.Or(a.Poll, time.Minute)
	sum := sha256.Sum256([]byte(a.Directory))
	i := &issuer{ACME: a, keys: certmagic.StandardKeyGenerator{KeyType: kind}, key: strings.ToLower(u.Hostname()) + "-" + hex.EncodeToString(sum[:8]), storage: storage, solvers: map[string]acmez.Solver{}, log: log}
	who := sha256.Sum256([]byte(a.Account.Email + "\x00" + a.Account.ExternalID))
	i.account = path.Join("accounts", i.key, hex.EncodeToString(who[:8]))
	i.challenges = newChallenges(storage, i.key)
	if a.ALPN {
		i.solvers[acme.ChallengeTypeTLSALPN01] = alpn{i.challenges}
	}
	if a.HTTP != "" {
		i.solvers[acme.ChallengeTypeHTTP01] = &web{challenges: i.challenges, address: a.HTTP, listen: a.Listen}
	}
	if a.DNS != nil {
		i.solvers[acme.ChallengeTypeDNS01] = txt{a.DNS, a.Settle}
	}
	if len(i.solvers) == 0 {
		return nil, bad("challenges", "none", "one at least")
	}
	i.transport = &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 30 * time.Second, ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.Roots},
	}
	return i, nil
}

// library has f use certmagic, with nothing of its defaults, and nothing that is left behind.
func (i *issuer) library(f func(*certmagic.Config) error) error {
	var config *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil }, Logger: zap.NewNop(),
	})
	defer cache.Stop()
	// The library's window opens a little before ours: it asks itself again, once it has the lock, whether there is anything to do.
	config = certmagic.New(cache, certmagic.Config{
		RenewalWindowRatio: 1 - renewAfter + 0.05, Issuers: []certmagic.Issuer{i}, KeySource: i.keys, Storage: i.storage.values, Logger: zap.NewNop(),
		DisableARI: true, OCSP: certmagic.OCSPConfig{DisableStapling: true},
	})
	return f(config)
}

// IssuerKey implements certmagic.Issuer.
func (i *issuer) IssuerKey() string { return i.key }

// replacesKey is the context's key of the certificate that another one takes the place of (RFC 9773 section 5).
type replacesKey struct{}

// patienceKey is the context's key of the *time.Duration for which the CA wants to be left alone.
type patienceKey struct{}

// Issue implements certmagic.Issuer.
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	client := i.client()
	for again := false; ; again = true {
		account, err := i.registered(ctx, client)
		if err != nil {
			return nil, err
		}
		params, err := acmez.OrderParametersFromCSR(account, csr)
		if err != nil {
			return nil, err
		}
		params.Profile = i.Profile
		client.ChallengeSolvers = map[string]acmez.Solver{}
		for typ, s := range i.solvers {
			client.ChallengeSolvers[typ] = &asked{Solver: s, names: params.Identifiers}
		}
		if dir, _ := client.GetDirectory(ctx); dir.RenewalInfo != "" {
			params.Replaces, _ = ctx.Value(replacesKey{}).(*x509.Certificate)
		}
		chains, err := client.ObtainCertificate(ctx, params)
		var problem acme.Problem
		switch {
		case err == nil && len(chains) > 0:
			return &certmagic.IssuedCertificate{Certificate: chains[0].ChainPEM}, nil
		case err == nil:
			return nil, errors.New("the CA has given no certificate")
		case !again && errors.As(err, &problem) && problem.Type == acme.ProblemTypeAccountDoesNotExist:
			i.log.Warn("the CA does not know our account any more", "directory", i.Directory)
			if err := i.storage.values.Delete(ctx, i.account); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

// Revoke implements certmagic.Revoker.
func (i *issuer) Revoke(ctx context.Context, cert certmagic.CertificateResource, reason int) error {
	chain, err := tls.X509KeyPair(cert.CertificatePEM, cert.PrivateKeyPEM)
	if err != nil {
		return err
	}
	client := i.client()
	account, err := i.registered(ctx, client)
	if err != nil {
		return err
	}
	return client.RevokeCertificate(ctx, account, chain.Leaf, account.PrivateKey, reason)
}

// advice is when the CA wants a certificate to be renewed (RFC 9773), and when it wants to be asked again. Both are zero where it has none.
func (i *issuer) advice(ctx context.Context, leaf *x509.Certificate) (renew, ask time.Time, err error) {
	info, err := i.client().GetRenewalInfo(ctx, leaf)
	if errors.Is(err, acme.ErrUnsupported) {
		return renew, ask, nil
	}
	if err != nil {
		return renew, ask, err
	}
	if info.RetryAfter != nil {
		ask = *info.RetryAfter
	}
	return info.SelectedTime, ask, nil
}

func (i *issuer) client() *acmez.Client {
	left := int64(sayLimit)
	return &acmez.Client{
		Client: &acme.Client{
			Directory: i.Directory, UserAgent: "jurat", PollInterval: time.Second, PollTimeout: answerLimit / 2,
			HTTPClient: &http.Client{Transport: careful{i.transport, &left}, Timeout: time.Minute},
			Logger:     slog.New(slog.DiscardHandler), // errors say the same
		},
	}
}

// careful bounds what a CA says, and heeds when it wants to be left alone.
type careful struct {
	http.RoundTripper
	left *int64 // bytes that it may say yet; requests come one after the other
}

// RoundTrip implements http.RoundTripper.
func (c careful) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &bounded{resp.Body, bodyLimit, c.left}
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return resp, nil
	}
	if patience, ok := r.Context().Value(patienceKey{}).(*time.Duration); ok {
		*patience = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return resp, nil
}

// bounded is a body that ends after so many bytes, of its own or in all.
type bounded struct {
	io.ReadCloser
	own int64
	all *int64
}

func (b *bounded) Read(p []byte) (int, error) {
	most := min(b.own, *b.all)
	if most == 0 {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), most)])
	b.own -= int64(n)
	*b.all -= int64(n)
	return n, err
}

// maxPatience is how long a CA can have itself left alone.
const maxPatience = 24 * time.Hour

// retryAfter reads the header (RFC 9110 section 10.2.3).
func retryAfter(text string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(text, 10, 31)
	d := time.Duration(seconds) * time.Second
	if err != nil {
		at, _ := http.ParseTime(text) // the year 1, where it is no time either
		d = at.Sub(now)
	}
	return min(max(d, 0), maxPatience)
}

// storedAccount is an account with its key, as it is stored.
type storedAccount struct {
	Account acme.Account `json:"account"`
	Key     []byte       `json:"key"` // PKCS #8
}

// load answers the account that is stored. It answers false where there is none, or none that can be used.
func (i *issuer) load(ctx context.Context) (acme.Account, bool) {
	raw, err := i.storage.values.Load(ctx, i.account)
	if errors.Is(err, fs.ErrNotExist) {
		return acme.Account{}, false
	}
	var s storedAccount
	err = cmp.Or(err, json.Unmarshal(raw, &s))
	key, unreadable := x509.ParsePKCS8PrivateKey(s.Key)
	signer, ok := key.(crypto.Signer)
	if err = cmp.Or(err, unreadable); err != nil || !ok {
		i.log.Warn("the ACME account that is stored can't be used", "code", string(attest.CodeOf(err)), "error", fmt.Sprint(err))
		return acme.Account{}, false
	}
	s.Account.PrivateKey = signer
	return s.Account, s.Account.Status == acme.StatusValid && s.Account.Location != ""
}

// registered answers our account at the CA, which it makes where there is none.
func (i *issuer) registered(ctx context.Context, client *acmez.Client) (acme.Account, error) {
	if err := i.storage.values.Lock(ctx, i.account); err != nil {
		return acme.Account{}, err
	}
	defer func() { _ = i.storage.values.Unlock(ctx, i.account) }()
	if a, ok := i.load(ctx); ok {
		return a, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if i.Account.Email != "" {
		a.Contact = []string{"mailto:" + i.Account.Email}
	}
	if err == nil && i.Account.ExternalID != "" {
		err = a.SetExternalAccountBinding(ctx, client.Client, acme.EAB{KeyID: i.Account.ExternalID, MACKey: i.Account.ExternalKey})
	}
	if err == nil {
		a, err = client.NewAccount(ctx, a)
	}
	if err != nil {
		return acme.Account{}, err
	}
	i.log.Info("new ACME account", "directory", i.Directory)
	return a, i.save(ctx, a, key)
}

// save stores an account for load.
func (i *issuer) save(ctx context.Context, a acme.Account, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(storedAccount{a, der})
	if err != nil {
		return err
	}
	return i.storage.values.Store(ctx, i.account, raw)
}

// describe gives what went wrong with a CA its code.
func describe(err error, name string) error {
	var coded *attest.Error
	var problem acme.Problem
	var network net.Error // a deadline is one as well
	e := &attest.Error{Check: "public.acme", Subject: name, Err: err}
	switch {
	case errors.As(err, &coded):
		return err
	case errors.As(err, &problem):
		e.Code, e.Err = attest.CodePublicFailed, errors.New(printable(problem.Type+": "+problem.Detail))
		if problem.Type == acme.ProblemTypeRateLimited || problem.Status == http.StatusTooManyRequests {
			e.Code = attest.CodeCALimit
		}
	case errors.As(err, &network):
		e.Code = attest.CodeCAUnreachable
	default:
		e.Code, e.Err = attest.CodePublicFailed, errors.New(printable(err.Error()))
	}
	return e
}

// printable is what a stranger said, for a log.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}
