package endorse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/test/fakepcs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// vendor is a service without a network, whose time is that of the test's bubble.
type vendor struct {
	pcs      *fakepcs.PCS
	requests atomic.Int64
	mu       sync.Mutex
	asked    []time.Time
	handle   func(*http.Request) (*http.Response, error) // nil: the service works
}

func (v *vendor) RoundTrip(r *http.Request) (*http.Response, error) {
	v.requests.Add(1)
	v.mu.Lock()
	v.asked = append(v.asked, time.Now())
	handle, pcs := v.handle, v.pcs
	v.mu.Unlock()
	if handle != nil {
		return handle(r)
	}
	w := &writer{header: http.Header{}, status: 200}
	pcs.ServeHTTP(w, r)
	return w.response(), nil
}

func (v *vendor) set(handle func(*http.Request) (*http.Response, error)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.handle = handle
}

type writer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) WriteHeader(s int)           { w.status = s }
func (w *writer) Write(b []byte) (int, error) { return w.body.Write(b) }
func (w *writer) response() *http.Response {
	return &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(&w.body)}
}

func status(code int, header ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		w := &writer{header: http.Header{}, status: code}
		for i := 0; i < len(header); i += 2 {
			w.header.Set(header[i], header[i+1])
		}
		return w.response(), nil
	}
}

func down(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") }

func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// bubble runs a test in which hours pass in no time. What the vendor issues is valid for thirty days from its start.
func bubble(t *testing.T, random float64, dir string, test func(t *testing.T, v *vendor, s *endorse.Service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p, err := fakepcs.New(time.Now(), 30*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		v := &vendor{pcs: p}
		s, err := endorse.New(endorse.Hosts{}, dir, endorse.WithClient(&http.Client{Transport: v}), endorse.WithRandom(func() float64 { return random }))
		if err != nil {
			t.Fatal(err)
		}
		test(t, v, s)
	})
}

func start(t *testing.T, s *endorse.Service) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	synctest.Wait()
	return func() { cancel(); <-done }
}

// pass lets time pass, and whatever is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func get(t *testing.T, s *endorse.Service, ref attest.Ref) {
	t.Helper()
	if got, err := s.Endorse(t.Context(), ref); err != nil || len(got) == 0 {
		t.Fatalf("%s: %v", ref.Path, err)
	}
}

// A running proxy renews what it uses within the day for lists and TCB levels, at a point between half and nine tenths.
func TestRenewsEarly(t *testing.T) {
	for random, want := range map[float64]time.Duration{0: 12 * time.Hour, 0.5: 16*time.Hour + 48*time.Minute, 1: 21*time.Hour + 36*time.Minute} {
		bubble(t, random, "", func(t *testing.T, v *vendor, s *endorse.Service) {
			defer start(t, s)()
			begin := time.Now()
			get(t, s, tcbRef)
			get(t, s, tcbRef) // in use
			pass(want - time.Second)
			if v.requests.Load() != 1 {
				t.Errorf("%v: asked again at %v", random, v.asked[1].Sub(begin))
			}
			pass(2 * time.Second)
			if v.requests.Load() != 2 {
				t.Fatalf("%v: %d requests after %v", random, v.requests.Load(), want)
			}
			pass(48 * time.Hour) // nobody used it since
			if v.requests.Load() != 2 {
				t.Errorf("%v: %d requests for what nobody uses", random, v.requests.Load())
			}
		})
	}
}

// A certificate says how long it is valid, and a list that ends sooner than a day is renewed sooner.
func TestRenewsByValidity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := fakepcs.New(time.Now(), 10*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		v := &vendor{pcs: p}
		s, err := endorse.New(endorse.Hosts{}, "", endorse.WithClient(&http.Client{Transport: v}), endorse.WithRandom(func() float64 { return 0 }))
		if err != nil {
			t.Fatal(err)
		}
		get(t, s, rootRef)
		pass(5*time.Hour - 2*time.Second)
		get(t, s, rootRef)
		if v.requests.Load() != 1 {
			t.Errorf("%d requests", v.requests.Load())
		}
		pass(3 * time.Second)
		get(t, s, rootRef)
		if v.requests.Load() != 2 {
			t.Errorf("%d requests", v.requests.Load())
		}
		v.set(func(*http.Request) (*http.Response, error) {
			w := &writer{header: http.Header{}, status: 200}
			_, _ = w.Write(p.Root)
			return w.response(), nil
		})
		get(t, s, chainRef) // valid for twenty years
		pass(9 * 365 * 24 * time.Hour)
		get(t, s, chainRef)
		if v.requests.Load() != 3 {
			t.Errorf("%d requests", v.requests.Load())
		}
		pass(365 * 24 * time.Hour * 3 / 2)
		get(t, s, chainRef)
		if v.requests.Load() != 4 {
			t.Errorf("%d requests", v.requests.Load())
		}
	})
}

// What failed is tried again by itself, and whatever is new is seen soon.
func TestRenewsAfterAnOutage(t *testing.T) {
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		defer start(t, s)()
		get(t, s, tcbRef)
		get(t, s, tcbRef)
		v.set(down)
		pass(28 * time.Hour)
		n := v.requests.Load()
		if n < 20 || n > 40 { // every quarter of an hour, after the first few
			t.Errorf("%d requests in an outage", n)
		}
		v.set(nil)
		pass(16 * time.Minute)
		if v.requests.Load() != n+1 {
			t.Errorf("%d requests after it, want one", v.requests.Load()-n)
		}
		short, err := fakepcs.New(time.Now(), 40*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		v.mu.Lock()
		v.pcs = short
		v.mu.Unlock()
		get(t, s, identityRef)
		get(t, s, identityRef)
		n = v.requests.Load()
		pass(36*time.Minute + time.Second)
		if v.requests.Load() != n+1 {
			t.Errorf("%d requests for what is valid for forty minutes", v.requests.Load()-n)
		}
		get(t, s, identityRef) // still valid for four minutes, and due: nobody waits, and nobody asks for ever
		v.set(down)
		pass(24 * time.Hour)
		n = v.requests.Load()
		pass(24 * time.Hour)
		if v.requests.Load() != n {
			t.Errorf("%d requests a day for what has expired", v.requests.Load()-n)
		}
	})
}

// An outage of a week inside validity harms nobody: neither a running proxy nor a command that starts anew, nor does
// anybody wait for it. Afterwards it is undecidable which way to go, and the error says what is missing, from where, and how
// to get it.
func TestOutage(t *testing.T) {
	for name, outage := range map[string]func(*http.Request) (*http.Response, error){
		"down": down, "broken": status(500), "rate limit": status(429), "rate limit with a date": status(429, "Retry-After", "7200"), "hangs": hangs, "forbidden": status(403), "gone": status(404),
		"junk": func(*http.Request) (*http.Response, error) {
			w := &writer{header: http.Header{}, status: 200}
			_, _ = io.WriteString(w, "<html>")
			return w.response(), nil
		},
	} {
		if testing.Short() && name != "down" && name != "hangs" {
			continue
		}
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				dir := t.TempDir()
				bubble(t, 0.5, dir, func(t *testing.T, v *vendor, s *endorse.Service) {
					if running {
						defer start(t, s)()
					}
					refs := answers(v.pcs)
					for ref := range refs {
						get(t, s, ref)
					}
					v.set(outage)
					for range 7 * 8 {
						if !running { // another process, that knows only the disk
							var err error
							if s, err = endorse.New(endorse.Hosts{}, dir, endorse.WithClient(&http.Client{Transport: v}), endorse.WithRandom(func() float64 { return 0.5 })); err != nil {
								t.Fatal(err)
							}
						}
						pass(3 * time.Hour)
						asked := time.Now()
						for ref, want := range refs {
							if got, err := s.Endorse(t.Context(), ref); err != nil || !same(got, want) {
								t.Fatalf("%s: %v", ref.Path, err)
							}
						}
						if waited := time.Since(asked); running && waited > 0 || waited > 2*time.Second*time.Duration(len(refs)) {
							t.Fatalf("waited %v", waited)
						}
					}
					pass(24 * 24 * time.Hour)
					_, err := s.Endorse(t.Context(), tcbRef)
					var coded *attest.Error
					if !errors.As(err, &coded) || !coded.Code.Undecidable() {
						t.Fatalf("after expiry: %v", err)
					}
					for _, want := range []string{"intel-pcs" + tcbRef.Path, "the one at hand expired 2000-01-31T00:00:00Z"} {
						if !strings.Contains(err.Error(), want) {
							t.Errorf("%v lacks %q", err, want)
						}
					}
					for _, want := range []string{endorse.DefaultIntel + tcbRef.Path, "jurat endorse export", "--endorsements"} {
						if !strings.Contains(coded.Remedy(), want) {
							t.Errorf("%s lacks %q", coded.Remedy(), want)
						}
					}
					v.set(nil) // what the vendor has now has expired too
					pass(2 * time.Hour)
					if _, err := s.Endorse(t.Context(), tcbRef); attest.CodeOf(err) != attest.CodeEndorsementExpired {
						t.Errorf("expired at the vendor: %v", err)
					}
					fresh, err := fakepcs.New(time.Now(), 30*24*time.Hour)
					if err != nil {
						t.Fatal(err)
					}
					v.mu.Lock()
					v.pcs = fresh
					v.mu.Unlock()
					pass(time.Hour)
					get(t, s, tcbRef)
				})
			})
		}
	}
}

// Within an outage of a week, the requests of a running proxy stay few, and stay apart.
func TestBackOff(t *testing.T) {
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		v.set(status(500))
		var gaps []time.Duration
		for range 12 {
			before := v.requests.Load()
			begin := time.Now()
			for v.requests.Load() == before {
				if _, err := s.Endorse(t.Context(), tcbRef); attest.CodeOf(err) != attest.CodeEndorserUnreachable {
					t.Fatal(err)
				}
				pass(time.Second)
			}
			gaps = append(gaps, time.Since(begin))
		}
		for i, want := range []time.Duration{0, 5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900} {
			if d := gaps[i] - want*time.Second; d < 0 || d > 2*time.Second {
				t.Errorf("request %d after %v, want %v", i, gaps[i], want*time.Second)
			}
		}
		_, err := s.Endorse(t.Context(), tcbRef)
		if err == nil || !strings.Contains(err.Error(), "not asked again before 2000-01-01T") {
			t.Error(err)
		}
		// It was this request that failed: others go through.
		v.set(nil)
		get(t, s, identityRef)
		pass(time.Hour)
		get(t, s, tcbRef)
		// Success forgets the past.
		v.set(status(500))
		pass(22 * time.Hour)
		get(t, s, tcbRef)
		pass(6 * time.Second)
		n := v.requests.Load()
		get(t, s, tcbRef)
		if v.requests.Load() != n+1 {
			t.Error("failures before a success count")
		}
	})
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) { // of a host as well
		v.set(down)
		for range 4 {
			if _, err := s.Endorse(t.Context(), tcbRef); attest.CodeOf(err) != attest.CodeEndorserUnreachable || strings.Contains(err.Error(), "at hand") {
				t.Fatal(err)
			}
			pass(time.Minute)
		}
		v.set(nil)
		get(t, s, tcbRef)
		v.set(down)
		if _, err := s.Endorse(t.Context(), identityRef); err == nil {
			t.Fatal("no outage")
		}
		v.set(nil)
		pass(6 * time.Second)
		get(t, s, identityRef)
	})
	bubble(t, 0, "", func(t *testing.T, v *vendor, s *endorse.Service) { // full jitter begins at nothing
		v.set(status(500))
		for i := range int64(3) {
			if _, err := s.Endorse(t.Context(), tcbRef); err == nil || v.requests.Load() != i+1 {
				t.Fatal(err)
			}
		}
	})
}

// A host that cannot be reached, or that says so, is left alone by all requests.
func TestHostBackOff(t *testing.T) {
	for name, c := range map[string]struct {
		handle func(*http.Request) (*http.Response, error)
		code   attest.Code
		quiet  time.Duration // at least
		all    bool
	}{
		"down":                   {down, attest.CodeEndorserUnreachable, 4 * time.Second, true},
		"429":                    {status(429), attest.CodeEndorserRefused, time.Minute, true},
		"429 with seconds":       {status(429, "Retry-After", "1800"), attest.CodeEndorserRefused, 30 * time.Minute, true},
		"429 for too long":       {status(429, "Retry-After", "86400000000"), attest.CodeEndorserRefused, time.Hour, true},
		"429 with a date":        {status(429, "Retry-After", "Sat, 01 Jan 2000 10:30:00 GMT", "Date", "Sat, 01 Jan 2000 10:00:00 GMT"), attest.CodeEndorserRefused, 30 * time.Minute, true},
		"429 with a far date":    {status(429, "Retry-After", "Sun, 02 Jan 2000 10:30:00 GMT", "Date", "Sat, 01 Jan 2000 10:00:00 GMT"), attest.CodeEndorserRefused, time.Hour, true},
		"429 with a past date":   {status(429, "Retry-After", "Sat, 01 Jan 2000 09:30:00 GMT", "Date", "Sat, 01 Jan 2000 10:00:00 GMT"), attest.CodeEndorserRefused, time.Minute, true},
		"429 with a lone date":   {status(429, "Retry-After", "Sat, 01 Jan 2000 10:30:00 GMT"), attest.CodeEndorserRefused, time.Minute, true},
		"429 with a negative":    {status(429, "Retry-After", "-5"), attest.CodeEndorserRefused, time.Minute, true},
		"503 that says how long": {status(503, "Retry-After", "600"), attest.CodeEndorserUnreachable, 10 * time.Minute, true},
		"503":                    {status(503), attest.CodeEndorserUnreachable, 4 * time.Second, false},
		"403":                    {status(403), attest.CodeEndorserRefused, time.Minute, false},
		"401":                    {status(401), attest.CodeEndorserRefused, time.Minute, false},
		"404":                    {status(404), attest.CodeEndorsementMissing, 5 * time.Minute, false},
		"204":                    {status(204), attest.CodeEndorserUnreachable, 4 * time.Second, false},
		"302":                    {status(302), attest.CodeEndorserUnreachable, 4 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
				v.set(c.handle)
				if _, err := s.Endorse(t.Context(), tcbRef); attest.CodeOf(err) != c.code || strings.Contains(err.Error(), "redirect") != (name == "302") {
					t.Fatal(err)
				}
				v.set(nil)
				pass(c.quiet - time.Second)
				_, err := s.Endorse(t.Context(), identityRef)
				if (err != nil) != c.all || err != nil && (attest.CodeOf(err) != c.code || !strings.Contains(err.Error(), identityRef.Path)) {
					t.Errorf("another request: %v", err)
				}
				if _, err := s.Endorse(t.Context(), tcbRef); attest.CodeOf(err) != c.code || !strings.Contains(err.Error(), "not asked again before") {
					t.Errorf("the same request: %v", err)
				}
				get(t, s, rootRef) // at another host
				pass(7 * time.Second)
				get(t, s, tcbRef)
				get(t, s, identityRef)
			})
		})
	}
}

// The budget of requests is stated, and identifiers out of evidence cannot use all of it.
func TestBudget(t *testing.T) {
	bubble(t, 0, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		named := func(i int) attest.Ref {
			return intelRef(fmt.Sprintf("/tdx/certification/v4/tcb?fmspc=%012x", i), attest.KindTCBInfo)
		}
		begin := time.Now()
		for i := range 300 {
			if _, err := s.Endorse(t.Context(), named(i)); attest.CodeOf(err) != attest.CodeEndorsementMissing {
				t.Fatal(i, err)
			}
			time.Sleep(time.Second)
		}
		_, err := s.Endorse(t.Context(), named(300))
		next := begin.Add(time.Hour).UTC().Format(time.RFC3339)
		if attest.CodeOf(err) != attest.CodeEndorserRefused || !strings.Contains(err.Error(), "300 requests to api.trustedservices.intel.com within an hour, our own limit; the next at "+next) {
			t.Fatal(err)
		}
		v.set(status(500))
		for i := range endorse.RequestsPerHour - 300 {
			if _, err := s.Endorse(t.Context(), identityRef); attest.CodeOf(err) != attest.CodeEndorserUnreachable {
				t.Fatal(i, err)
			}
		}
		if _, err := s.Endorse(t.Context(), identityRef); attest.CodeOf(err) != attest.CodeEndorserRefused {
			t.Fatal(err)
		}
		if v.requests.Load() != endorse.RequestsPerHour {
			t.Errorf("%d requests", v.requests.Load())
		}
		v.set(nil)
		get(t, s, rootRef) // another host has its own
		time.Sleep(time.Until(begin.Add(time.Hour)))
		get(t, s, identityRef)
	})
}

func TestConcurrency(t *testing.T) {
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		release := make(chan struct{})
		var at, most atomic.Int64
		v.set(func(*http.Request) (*http.Response, error) {
			most.Store(max(most.Load(), at.Add(1)))
			<-release
			at.Add(-1)
			return nil, errors.New("reset")
		})
		errs := make(chan error)
		for i := range 20 {
			go func() {
				_, err := s.Endorse(t.Context(), intelRef(fmt.Sprintf("/tdx/certification/v4/tcb?fmspc=%012x", i), attest.KindTCBInfo))
				errs <- err
			}()
		}
		synctest.Wait()
		if at.Load() != 4 {
			t.Errorf("%d at the same time", at.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Endorse(ctx, identityRef); attest.CodeOf(err) != attest.CodeEndorserUnreachable || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), identityRef.Path) {
			t.Errorf("who waits for his turn: %v", err)
		}
		close(release)
		for range 20 {
			if err := <-errs; attest.CodeOf(err) != attest.CodeEndorserUnreachable {
				t.Error(err)
			}
		}
		// What the host told those before is not asked again by those who waited.
		if v.requests.Load() != 4 || most.Load() != 4 {
			t.Errorf("%d requests, %d at the same time", v.requests.Load(), most.Load())
		}
	})
}

// Whoever has a valid answer does not wait long for a newer one, and the next does not wait at all.
func TestRenewalIsNotWaitedFor(t *testing.T) {
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		get(t, s, tcbRef)
		v.set(hangs)
		pass(22 * time.Hour)
		for i, want := range []time.Duration{2 * time.Second, 0} {
			begin := time.Now()
			get(t, s, tcbRef)
			if got := time.Since(begin); got != want {
				t.Errorf("request %d waited %v", i, got)
			}
		}
		synctest.Wait()
	})
}

// Whoever is told what is known already does not wait for his turn.
func TestKnownFailuresAreToldAtOnce(t *testing.T) {
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		v.set(status(404))
		if _, err := s.Endorse(t.Context(), identityRef); attest.CodeOf(err) != attest.CodeEndorsementMissing {
			t.Fatal(err)
		}
		v.set(hangs)
		for i := range 4 {
			go func() {
				_, _ = s.Endorse(t.Context(), intelRef(fmt.Sprintf("/tdx/certification/v4/tcb?fmspc=%012x", i), attest.KindTCBInfo))
			}()
		}
		synctest.Wait()
		begin := time.Now()
		if _, err := s.Endorse(t.Context(), identityRef); attest.CodeOf(err) != attest.CodeEndorsementMissing || time.Since(begin) != 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		pass(time.Minute)
	})
}

// Whoever has nothing waits longer.
func TestFirstAnswerIsWaitedFor(t *testing.T) {
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		v.set(func(r *http.Request) (*http.Response, error) {
			time.Sleep(10 * time.Second)
			w := &writer{header: http.Header{}, status: 200}
			v.pcs.ServeHTTP(w, r)
			return w.response(), nil
		})
		get(t, s, tcbRef)
	})
}

// Time that stands still, or runs backwards, is no reason to ask without end.
func TestClockThatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := fakepcs.New(time.Now(), 30*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		v := &vendor{pcs: p}
		shift := 0 * time.Hour
		s, err := endorse.New(endorse.Hosts{}, t.TempDir(), endorse.WithClient(&http.Client{Transport: v}), endorse.WithRandom(func() float64 { return 0 }),
			endorse.WithClock(func() time.Time { return time.Now().Add(shift) }))
		if err != nil {
			t.Fatal(err)
		}
		get(t, s, tcbRef)
		shift = -48 * time.Hour
		get(t, s, tcbRef)
		get(t, s, tcbRef)
		if v.requests.Load() != 1 {
			t.Errorf("%d requests", v.requests.Load())
		}
	})
}

// Who gives up leaves no failure behind for others.
func TestGivingUpIsNoFailure(t *testing.T) {
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		v.set(hangs)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Endorse(ctx, tcbRef); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		synctest.Wait()
		v.set(nil)
		get(t, s, tcbRef)
	})
}

func TestPanicIsContained(t *testing.T) {
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		v.set(func(*http.Request) (*http.Response, error) { panic("index out of range") })
		for range 5 { // more than there are slots
			if _, err := s.Endorse(t.Context(), tcbRef); attest.CodeOf(err) != attest.CodeInternal {
				t.Fatal(err)
			}
		}
		v.set(nil)
		get(t, s, tcbRef)
	})
}

// Those who ask for the same share a request, as long as one of them wants it, and nobody joins one that was given up.
func TestWhoSharesARequest(t *testing.T) {
	bubble(t, 1, "", func(t *testing.T, v *vendor, s *endorse.Service) {
		release := make(chan struct{}, 8)
		deaf := make(chan struct{})
		v.set(func(r *http.Request) (*http.Response, error) {
			select {
			case <-deaf: // the rest hear when nobody wants them any more
			default:
				<-release
			}
			select {
			case <-release:
				return status(404)(r)
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})
		ask := func() (cancel func(), answer chan error) {
			ctx, stop := context.WithCancel(t.Context())
			answer = make(chan error, 1)
			go func() {
				_, err := s.Endorse(ctx, tcbRef)
				answer <- err
			}()
			synctest.Wait()
			return stop, answer
		}
		expect := func(requests int64) {
			t.Helper()
			if got := v.requests.Load(); got != requests {
				t.Fatalf("%d requests, want %d", got, requests)
			}
		}
		giveUpA, a := ask()
		giveUpA()
		if err := <-a; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		close(deaf)
		giveUpB, b := ask() // the first hangs on, and nobody wants it
		expect(2)
		release <- struct{}{} // it ends, and is not the one that is under way
		synctest.Wait()
		_, c := ask()
		expect(2)
		giveUpB()
		<-b
		synctest.Wait()
		_, d := ask()
		expect(2)
		release <- struct{}{}
		for _, answer := range []chan error{c, d} {
			if err := <-answer; attest.CodeOf(err) != attest.CodeEndorsementMissing {
				t.Error(err)
			}
		}
		expect(2)
	})
}
