package endorse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

const (
	// renewWait is how long somebody who has a valid answer waits for a newer one.
	renewWait = 2 * time.Second
	// lookAround is how often Run looks for what is due, whatever it computed: there may be something new, something may have
	// failed, and clocks jump.
	lookAround = 5 * time.Minute
)

// Service is an attest.Endorser that asks the vendors' services or mirrors of them. It is safe for concurrent use.
type Service struct {
	vendors []vendor
	hosts   map[string]*host
	client  *http.Client
	now     func() time.Time
	random  func() float64
	cache   *cache
	failed  backoff
	flights flights
	running atomic.Bool
	changed func(attest.Ref) // nil for nobody
}

var _ attest.Endorser = (*Service)(nil)

// Option adjusts a Service.
type Option func(*Service)

// WithClient makes requests through a copy of c that follows no redirects.
func WithClient(c *http.Client) Option { return func(s *Service) { copied := *c; s.client = &copied } }

// WithClock sets the clock that judges how long an answer may be kept.
func WithClock(now func() time.Time) Option { return func(s *Service) { s.now = now } }

// WithRandom sets the source of jitter: numbers from 0 to 1.
func WithRandom(random func() float64) Option { return func(s *Service) { s.random = random } }

// WithChanged has f told of answers that say something else than the one before did, such as a list with one more revoked key.
// It must not wait.
func WithChanged(f func(attest.Ref)) Option { return func(s *Service) { s.changed = f } }

// New makes a Service. An empty cacheDir keeps answers in memory only.
func New(hosts Hosts, cacheDir string, options ...Option) (*Service, error) {
	list, err := vendors(hosts)
	if err != nil {
		return nil, err
	}
	c, err := newCache(cacheDir)
	if err != nil {
		return nil, err
	}
	s := &Service{
		vendors: list, hosts: map[string]*host{}, client: newClient(), now: time.Now, random: rand.Float64, cache: c,
	}
	for _, o := range options {
		o(s)
	}
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s.client.Jar = nil
	for _, v := range list {
		for i := range v.routes {
			u, _ := url.Parse(v.url(&v.routes[i], "")) // address has parsed it
			if s.hosts[u.Host] == nil {
				s.hosts[u.Host] = newHost(u.Host)
			}
			v.routes[i].host = s.hosts[u.Host]
		}
	}
	return s, nil
}

// Endorse implements attest.Endorser.
func (s *Service) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	e, err := s.Fetch(ctx, ref)
	return e.Endorsements, err
}

// Fetch is Endorse, and tells when the answer was fetched.
func (s *Service) Fetch(ctx context.Context, ref attest.Ref) (Entry, error) {
	q, err := s.question(ref)
	if err != nil {
		return Entry{}, err
	}
	now := s.now()
	have := s.cache.get(ref, now, s.random)
	valid := !now.After(have.expires)
	if valid && (s.running.Load() || now.Before(have.due)) {
		return have.Entry, nil
	}
	wait := ctx
	if valid {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, renewWait)
		defer cancel()
	}
	got, problem := s.ask(wait, q)
	switch {
	case problem == nil:
		return got, nil
	case valid: // due for renewal, but still good: an outage harms nobody
		if wait.Err() != nil {
			s.failed.fail(q.key(), problem, now, 0, 1)
		}
		return have.Entry, nil
	}
	return Entry{}, q.undecided(problem, have.expires)
}

// Run renews what is in use before it expires, until ctx ends. While it runs nobody waits for a renewal.
func (s *Service) Run(ctx context.Context) {
	s.running.Store(true)
	defer s.running.Store(false)
	for ctx.Err() == nil {
		timer := time.NewTimer(s.renew(ctx))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// renew fetches what is due, and answers how long to wait for the next.
func (s *Service) renew(ctx context.Context) time.Duration {
	next := lookAround
	for ref, at := range s.cache.wanted(s.now()) {
		now := s.now()
		if now.Before(at) {
			next = min(next, at.Sub(now))
			continue
		}
		q, _ := s.question(ref) // the cache has nothing else
		_, _ = s.ask(ctx, q)    // what fails is asked again when its back-off is over
	}
	return max(next, time.Second)
}

// question is a request that a vendor's service can be asked.
type question struct {
	ref    attest.Ref
	vendor *vendor
	route  *route
}

func (s *Service) question(ref attest.Ref) (*question, error) {
	for i := range s.vendors {
		v := &s.vendors[i]
		if ref.Service != v.service && (ref.Service != simulated+v.service || v.official) {
			continue
		}
		r := v.route(ref)
		if r == nil {
			return nil, refuse(attest.CodeEndorsementMissing, ref, "a request that "+v.service+" does not have", nil)
		}
		return &question{ref, v, r}, nil
	}
	return nil, refuse(attest.CodeEndorsementMissing, ref, "no service of that name", nil)
}

// Serves tells whether ref is something that a configured service can be asked for.
func (s *Service) Serves(ref attest.Ref) bool {
	_, err := s.question(ref)
	return err == nil
}

func (q *question) key() string {
	return q.ref.Service + " " + q.ref.Path + " " + string(q.ref.Kind)
}

func (q *question) url() string { return q.vendor.url(q.route, q.ref.Path) }

// undecided says how to come by what is missing.
func (q *question) undecided(problem *attest.Error, expired time.Time) error {
	out := *problem
	if !expired.IsZero() {
		out.Got = strings.TrimPrefix(out.Got+"; the one at hand expired "+stamp(expired), "; ")
	}
	out.Hint = fmt.Sprintf("it is at %s: fetch it where that host can be reached (jurat endorse export) and give it with --endorsements", q.url())
	return &out
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// blocked answers why and until when q is not asked.
func (s *Service) blocked(q *question, now time.Time) (time.Time, *attest.Error) {
	until, err := s.failed.blocked(q.route.host.name, now)
	if err == nil {
		until, err = s.failed.blocked(q.key(), now)
	}
	return until, err
}

// ask asks the service once for all who want to know at the same time.
func (s *Service) ask(ctx context.Context, q *question) (Entry, *attest.Error) {
	if until, err := s.blocked(q, s.now()); err != nil {
		return Entry{}, notAgain(err, q.ref, until)
	}
	e, err := s.flights.do(ctx, q.key(), func(ctx context.Context) (Entry, error) { return s.fetch(ctx, q) })
	var problem *attest.Error
	if err != nil && !errors.As(err, &problem) { // our own patience is at an end
		problem = refuse(attest.CodeEndorserUnreachable, q.ref, "no answer in time from "+q.route.host.name, err)
	}
	return e, problem
}

// notAgain is the failure that is remembered, for this request.
func notAgain(was *attest.Error, ref attest.Ref, until time.Time) *attest.Error {
	return refuse(was.Code, ref, strings.TrimPrefix(was.Got+"; not asked again before "+stamp(until), "; "), was.Err)
}

// fetch asks the service, and keeps the answer.
func (s *Service) fetch(ctx context.Context, q *question) (Entry, error) {
	h := q.route.host
	if err := h.enter(ctx); err != nil {
		return Entry{}, refuse(attest.CodeEndorserUnreachable, q.ref, "", err)
	}
	defer h.leave()
	if until, err := s.blocked(q, s.now()); err != nil { // it failed for those before us
		return Entry{}, notAgain(err, q.ref, until)
	}
	limit := RequestsPerHour
	if q.route.named {
		limit -= reserved
	}
	if again, ok := h.spend(s.now(), limit); !ok {
		return Entry{}, refuse(attest.CodeEndorserRefused, q.ref, fmt.Sprintf("%d requests to %s within an hour, our own limit; the next at %s", limit, h.name, stamp(again)), nil)
	}
	timed, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	body, header, p := request(timed, s.client, q.url())
	e := Entry{Ref: q.ref, Fetched: s.now()}
	if p == nil {
		p = q.read(&e, body, header)
	}
	if p != nil {
		err := refuse(p.code, q.ref, p.got, p.err)
		if ctx.Err() == nil { // nobody gave up on it
			key := q.key()
			if p.host {
				key = h.name
			}
			s.failed.fail(key, err, s.now(), p.least, s.random())
		}
		return Entry{}, err
	}
	s.failed.succeed(h.name)
	s.failed.succeed(q.key())
	if s.cache.put(&e, s.random()) && s.changed != nil {
		s.changed(e.Ref)
	}
	return e, nil
}

// read decodes an answer. One that has expired is of no use to anybody, and must not take the place of a better one.
func (q *question) read(e *Entry, body []byte, header http.Header) *problem {
	list, err := q.route.read(body, header)
	var expires time.Time
	if err == nil {
		e.Endorsements = list
		expires, err = e.Expires()
	}
	if err != nil {
		return &problem{code: attest.CodeEndorserUnreachable, got: "an answer from " + q.route.host.name + " that is no " + string(q.ref.Kind), err: err}
	}
	if e.Fetched.After(expires) {
		return &problem{code: attest.CodeEndorsementExpired, got: "an answer from " + q.route.host.name + " that expired " + stamp(expires), least: missingWait}
	}
	return nil
}

func refuse(code attest.Code, ref attest.Ref, got string, err error) *attest.Error {
	return &attest.Error{Code: code, Check: "endorsements", Got: got, Want: ref.Service + ref.Path, Err: err}
}
