package endorse

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// DefaultKDS is AMD's Key Distribution Service.
const DefaultKDS = "https://kdsintf.amd.com"

// Services that KDS answers for, as their verifiers name them. AMD itself is never asked about simulated chips.
const (
	service          = "amd-kds"
	simulatedService = "sim-amd-kds"
)

const (
	maxBody = attest.MaxEndorsement
	maxPath = 512
	// fetchTime bounds one request, whoever waits for it.
	fetchTime = 15 * time.Second
	// renewCRL is the age at which a newer revocation list is looked for while the old one is still valid.
	renewCRL = 24 * time.Hour
	// How long a failure is remembered.
	missingTime     = 5 * time.Minute
	unreachableTime = 5 * time.Second
	refusedTime     = time.Minute
	maxRefusedTime  = 10 * time.Minute
)

// KDS is an attest.Endorser that asks AMD's Key Distribution Service or a mirror of it. It is safe for concurrent use.
type KDS struct {
	base    string
	client  *http.Client
	now     func() time.Time
	cache   *cache
	flights flights
}

var _ attest.Endorser = (*KDS)(nil)

// Option adjusts a KDS.
type Option func(*KDS)

// WithClient makes requests through a copy of c that follows no redirects.
func WithClient(c *http.Client) Option { return func(k *KDS) { copied := *c; k.client = &copied } }

// WithClock sets the clock that judges how long an answer may be kept.
func WithClock(now func() time.Time) Option { return func(k *KDS) { k.now = now } }

// NewKDS makes a KDS. An empty baseURL is AMD's own service; an empty cacheDir keeps answers in memory only.
func NewKDS(baseURL, cacheDir string, options ...Option) (*KDS, error) {
	if baseURL == "" {
		baseURL = DefaultKDS
	}
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "endorser", Got: fmt.Sprintf("%.100q", baseURL), Want: "https://HOST[:PORT][/PATH], or http:// for a service on this machine"}
	}
	k := &KDS{base: strings.TrimSuffix(u.String(), "/"), client: &http.Client{}, now: time.Now}
	for _, o := range options {
		o(k)
	}
	k.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	k.client.Jar = nil
	k.cache, err = newCache(cacheDir)
	return k, err
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Endorse implements attest.Endorser.
func (k *KDS) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	if ref.Service != service && (ref.Service != simulatedService || k.base == DefaultKDS) {
		return nil, refuse(attest.CodeEndorsementMissing, ref, "an endorser of "+service, nil)
	}
	if !validPath(ref.Path) {
		return nil, refuse(attest.CodeEndorsementMissing, ref, "a path that is none of the service", nil)
	}
	key := ref.Service + " " + k.base + ref.Path + " " + string(ref.Kind)
	kept, fresh := k.cache.get(key, ref, k.now())
	if fresh {
		return kept, nil
	}
	if err := k.cache.failure(key, k.now()); err != nil {
		if kept != nil {
			return kept, nil
		}
		return nil, err
	}
	list, err := k.flights.do(ctx, key, func(ctx context.Context) ([]attest.Endorsement, error) {
		return k.fetch(ctx, key, ref)
	})
	if err != nil && kept != nil {
		return kept, nil // due for renewal, but still valid
	}
	return list, err
}

// fetch asks the service, and keeps the answer.
func (k *KDS) fetch(ctx context.Context, key string, ref attest.Ref) ([]attest.Endorsement, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	body, wait, err := k.request(ctx, ref)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) {
			k.cache.fail(key, err, k.now().Add(wait))
		}
		return nil, err
	}
	list, err := decode(body, ref)
	if err != nil {
		k.cache.fail(key, err, k.now().Add(unreachableTime))
		return nil, err
	}
	k.cache.put(key, body, k.now())
	return list, nil
}

// request makes one request. For a failure it also tells how long to wait before the next.
func (k *KDS) request(ctx context.Context, ref attest.Ref) ([]byte, time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+ref.Path, nil)
	if err != nil {
		return nil, unreachableTime, refuse(attest.CodeEndorserUnreachable, ref, "", err)
	}
	req.Header.Set("User-Agent", "jurat")
	resp, err := k.client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the URL is in the error already
		}
		return nil, unreachableTime, refuse(attest.CodeEndorserUnreachable, ref, "", err)
	}
	defer resp.Body.Close()
	got := fmt.Sprintf("status %d from %s", resp.StatusCode, req.URL.Host)
	switch status := resp.StatusCode; {
	case status == http.StatusOK:
	case status == http.StatusTooManyRequests:
		return nil, retryAfter(resp.Header), refuse(attest.CodeEndorserRefused, ref, got, nil)
	case status >= 300 && status < 400:
		return nil, unreachableTime, refuse(attest.CodeEndorserUnreachable, ref, got+", a redirect that is not followed", nil)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return nil, refusedTime, refuse(attest.CodeEndorserRefused, ref, got, nil)
	case status >= 400 && status < 500:
		return nil, missingTime, refuse(attest.CodeEndorsementMissing, ref, got, nil)
	default:
		return nil, unreachableTime, refuse(attest.CodeEndorserUnreachable, ref, got, nil)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, unreachableTime, refuse(attest.CodeEndorserUnreachable, ref, "", err)
	}
	if len(body) > maxBody {
		return nil, unreachableTime, refuse(attest.CodeEndorserUnreachable, ref, fmt.Sprintf("an answer of more than %d bytes", maxBody), nil)
	}
	return body, 0, nil
}

// retryAfter reads how many seconds the service wants to be left alone.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 1 {
		return refusedTime
	}
	return min(time.Duration(min(seconds, 3600))*time.Second, maxRefusedTime)
}

// validPath admits what the KDS has: the path decides nothing about the host, and cannot leave the base.
func validPath(path string) bool {
	if len(path) > maxPath || !strings.HasPrefix(path, "/") || strings.Contains(path, "..") || strings.Contains(path, "//") {
		return false
	}
	for _, c := range []byte(path) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("/_?=&.-", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// decode reads the service's answer: one DER object, or PEM blocks.
func decode(body []byte, ref attest.Ref) ([]attest.Endorsement, error) {
	list, err := parse(body)
	if err != nil || len(list) == 0 || len(list) > attest.MaxEndorsements {
		return nil, refuse(attest.CodeEndorserUnreachable, ref, "an answer that is no "+string(ref.Kind), err)
	}
	for _, e := range list {
		if e.Kind != ref.Kind {
			return nil, refuse(attest.CodeEndorserUnreachable, ref, "an answer that is a "+string(e.Kind), nil)
		}
	}
	return list, nil
}

// parse reads certificates and revocation lists in DER or PEM, and checks that each decodes.
func parse(raw []byte) ([]attest.Endorsement, error) {
	var list []attest.Endorsement
	if block, rest := pem.Decode(raw); block != nil {
		for ; block != nil; block, rest = pem.Decode(rest) {
			one, err := parseDER(block.Bytes)
			if err != nil {
				return nil, err
			}
			if list = append(list, one); len(list) > maxFiles {
				return nil, fmt.Errorf("more than %d PEM blocks", maxFiles)
			}
		}
		return list, nil
	}
	one, err := parseDER(raw)
	if err != nil {
		return nil, err
	}
	return append(list, one), nil
}

func parseDER(der []byte) (attest.Endorsement, error) {
	if _, err := x509.ParseCertificate(der); err == nil {
		return attest.Endorsement{Kind: attest.KindCertificate, Raw: der}, nil
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil || len(crl.Raw) != len(der) {
		return attest.Endorsement{}, errors.New("neither a certificate nor a revocation list")
	}
	return attest.Endorsement{Kind: attest.KindCRL, Raw: der}, nil
}

func refuse(code attest.Code, ref attest.Ref, got string, err error) *attest.Error {
	return &attest.Error{Code: code, Check: "endorsements", Got: got, Want: ref.Service + ref.Path, Err: err}
}
