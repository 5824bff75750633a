package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func body(name, content string) []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, name)
	b = protowire.AppendTag(b, 200, protowire.BytesType)
	return protowire.AppendString(b, content)
}

func response(typ, nonce string, all ...string) *Response {
	r := &Response{Type: typ, Version: nonce, Nonce: nonce}
	for _, a := range all {
		r.Items = append(r.Items, protocol.Item{Name: a, Version: nonce, HasBody: true, Type: typ, Body: body(a, nonce)})
	}
	return r
}

// control is a control plane in memory: each stream is given to play.
type control struct {
	play  func(n int, s *end) error // nil: waits until the stream is given up
	open  func(ctx context.Context, n int) error
	mu    sync.Mutex
	n     int
	times []time.Time
}

func (c *control) Open(ctx context.Context, kind Kind) (Stream, error) {
	c.mu.Lock()
	n := c.n
	c.n++
	c.times = append(c.times, time.Now())
	c.mu.Unlock()
	if c.open != nil {
		if err := c.open(ctx, n); err != nil {
			return nil, err
		}
	}
	s := &end{ctx: ctx, up: make(chan *Request), down: make(chan *Response), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		if s.err = c.play(n, s); s.err == nil {
			<-ctx.Done()
			s.err = ctx.Err()
		}
	}()
	return s, nil
}

func (c *control) attempts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// end is the server's end of a stream, and the client's.
type end struct {
	ctx   context.Context
	up    chan *Request
	down  chan *Response
	ended chan struct{}
	err   error
}

func (s *end) Send(r *Request) error {
	select {
	case s.up <- r:
		return nil
	case <-s.ended:
		return s.err
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *end) Recv() (*Response, error) {
	select {
	case r := <-s.down:
		return r, nil
	case <-s.ended:
		return nil, s.err
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

var errGone = errors.New("the client is gone")

func (s *end) read() (*Request, error) {
	select {
	case r := <-s.up:
		return r, nil
	case <-s.ctx.Done():
		return nil, errGone
	}
}

func (s *end) write(r *Response) error {
	select {
	case s.down <- r:
		return nil
	case <-s.ctx.Done():
		return errGone
	}
}

// serve answers the first request of every type with what is there, and reads on.
func serve(all ...*Response) func(int, *end) error {
	return func(n int, s *end) error {
		for {
			r, err := s.read()
			if err != nil {
				return nil
			}
			for _, a := range all {
				if a.Type == r.Type && r.Nonce == "" {
					if err := s.write(a); err != nil {
						return nil
					}
				}
			}
		}
	}
}

// sink writes down what it is told.
type sink struct {
	mu    sync.Mutex
	said  []string
	offer func(*Update) error
}

func (s *sink) Offer(u *Update) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %s", u.Cause, u.Type[strings.LastIndexByte(u.Type, '.')+1:])
	for _, r := range u.Changed {
		b.WriteString(" " + r.Name)
	}
	for _, n := range u.Removed {
		b.WriteString(" -" + n)
	}
	s.mu.Lock()
	s.said = append(s.said, b.String())
	offer := s.offer
	s.mu.Unlock()
	if offer != nil {
		return offer(u)
	}
	return nil
}

func (s *sink) Missing(typ string, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, fmt.Sprintf("missing %s %q", typ[strings.LastIndexByte(typ, '.')+1:], names))
}

func (s *sink) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.said)
}

func (s *sink) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := s.all(); !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
}

// run starts a client and gives what ends it.
func run(t *testing.T, c *Client) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func half() float64 { return 0.5 }

func make1(t *testing.T, transport Transport, s Sink, change func(*Config)) *Client {
	t.Helper()
	config := Config{Kind: Delta, Random: half, Node: Node{ID: "me"}}
	if change != nil {
		change(&config)
	}
	c, err := New(config, transport, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		Config
		Transport
		Sink
	}{
		{Config{Kind: Delta, Random: half}, nil, &sink{}},
		{Config{Kind: Delta, Random: half}, &control{}, nil},
		{Config{Random: half}, &control{}, &sink{}},
		{Config{Kind: Delta}, &control{}, &sink{}},
	} {
		if _, err := New(c.Config, c.Transport, c.Sink); err == nil {
			t.Error("made")
		}
	}
}

func TestRun(t *testing.T) {
	for _, kind := range []Kind{StateOfTheWorld, Delta} {
		synctest.Test(t, func(t *testing.T) {
			cds, eds := response(resource.Cluster, "1", "a", "b"), response(resource.Endpoints, "1", "a", "b")
			s := &sink{}
			c := make1(t, &control{play: serve(cds, eds)}, s, func(c *Config) { c.Kind = kind })
			s.offer = func(u *Update) error {
				if u.Type == resource.Cluster {
					return c.Subscribe(resource.Endpoints, []string{"a", "b"}, 0) // from where it is called
				}
				return nil
			}
			if err := c.Subscribe(resource.Cluster, []string{"*"}, 0); err != nil {
				t.Fatal(err)
			}
			stop := run(t, c)
			s.expect(t, "answered Cluster a b", "answered ClusterLoadAssignment a b")
			if err := c.Subscribe(resource.Secret, []string{"s"}, time.Second); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			s.expect(t, "answered Cluster a b", "answered ClusterLoadAssignment a b", `missing Secret ["s"]`)
			st := c.Status()
			if !st.Open || len(st.Types) != 3 || st.Types[0].Accepted != 1 || st.Attempts != 0 || st.LastError != "" {
				t.Errorf("%+v", st)
			}
			if r := c.Resources(resource.Cluster); len(r) != 2 || r[0].Name != "a" || r[0].Body == nil {
				t.Error(r)
			}
			stop()
			if st := c.Status(); st.Open {
				t.Error("still open")
			}
			if err := c.Run(t.Context()); err == nil {
				t.Error("run twice")
			}
		})
	}
}

// A control plane that is away, that refuses, that hangs up after each answer, or that does not speak the protocol is tried again at
// growing intervals, and nothing changes meanwhile.
func TestBackoff(t *testing.T) {
	hour := time.Hour
	refuse := errors.New("ResourceExhausted: too many")
	for name, control := range map[string]*control{
		"refuses connections": {open: func(context.Context, int) error { return refuse }},
		"refuses streams":     {play: func(int, *end) error { return refuse }},
		"hangs up after an answer": {play: func(n int, s *end) error {
			_, _ = s.read()
			_ = s.write(response(resource.Cluster, fmt.Sprint(n), "a"))
			return refuse
		}},
		"sends nonsense": {play: func(n int, s *end) error {
			_, _ = s.read()
			return s.write(&Response{Type: resource.Cluster})
		}},
		"takes long to refuse": {open: func(ctx context.Context, n int) error {
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
			}
			return refuse
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sink{}
				c := make1(t, control, s, func(c *Config) { c.Random = func() float64 { return 0.999 } })
				_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
				stop := run(t, c)
				time.Sleep(hour)
				synctest.Wait()
				if n := control.attempts(); n < 60 || n > 150 {
					t.Errorf("%d attempts in an hour", n)
				}
				for i := 2; i < 6; i++ {
					a, b := control.times[i-1].Sub(control.times[i-2]), control.times[i].Sub(control.times[i-1])
					if b < a+400*time.Millisecond {
						t.Errorf("a pause of %v after one of %v", b, a)
					}
				}
				if st := c.Status(); st.Attempts < 60 || st.LastError == "" || st.Next.Before(time.Now().Add(-time.Minute)) {
					t.Errorf("%+v", st)
				}
				stop()
			})
		})
	}
	t.Run("is soon back after a stream that was good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctrl := &control{play: func(n int, s *end) error {
				if n < 20 {
					return refuse
				}
				select {
				case <-time.After(time.Minute):
				case <-s.ctx.Done():
				}
				return refuse
			}}
			c := make1(t, ctrl, &sink{}, nil)
			stop := run(t, c)
			time.Sleep(time.Hour)
			stop()
			n := len(ctrl.times)
			if d := ctrl.times[n-1].Sub(ctrl.times[n-2]); d != time.Minute+250*time.Millisecond {
				t.Error(d)
			}
		})
	})
	t.Run("never at once, whatever the dice say", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctrl := &control{play: func(int, *end) error { return refuse }}
			c := make1(t, ctrl, &sink{}, func(c *Config) { c.Random = func() float64 { return 0 } })
			stop := run(t, c)
			time.Sleep(time.Minute)
			stop()
			if n := ctrl.attempts(); n > 1201 {
				t.Errorf("%d attempts in a minute", n)
			}
		})
	})
}

// While there is no stream, and while one is being opened, times go on.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ttl := response(resource.Cluster, "1", "a", "b")
		ttl.Items[0].TTL = time.Minute
		ctrl := &control{
			play: func(n int, s *end) error {
				_, _ = s.read()
				_ = s.write(ttl)
				_, _ = s.read()
				return errors.New("gone")
			},
			open: func(ctx context.Context, n int) error {
				if n > 0 {
					<-ctx.Done() // hangs for ever
					return ctx.Err()
				}
				return nil
			},
		}
		s := &sink{}
		c := make1(t, ctrl, s, nil)
		_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
		stop := run(t, c)
		time.Sleep(30 * time.Second)
		_ = c.Subscribe(resource.Listener, []string{"*"}, 10*time.Second)
		s.expect(t, "answered Cluster a b")
		time.Sleep(time.Hour)
		s.expect(t, "answered Cluster a b", "expired Cluster -a") // and nobody is late meanwhile
		if r := c.Resources(resource.Cluster); len(r) != 1 || r[0].Name != "b" {
			t.Error(r)
		}
		stop()
	})
}

// Requests and responses do not wait for one another.
func TestServerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctrl := &control{play: func(_ int, s *end) error {
			_, _ = s.read()
			for n := range 1000 {
				if s.write(response(resource.Cluster, fmt.Sprint(n), fmt.Sprint("c", n))) != nil {
					break
				}
			}
			return nil
		}}
		s := &sink{}
		c := make1(t, ctrl, s, nil)
		_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
		stop := run(t, c)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		// The acknowledgements that a server has to take are bounded, and with them what is read of it.
		if got := len(s.all()); got != 65 {
			t.Errorf("%d responses were judged", got)
		}
		time.Sleep(1100 * time.Millisecond) // and it is hung up on
		if st := c.Status(); st.Open || !strings.Contains(st.LastError, "could not be sent") {
			t.Errorf("%+v", st)
		}
		stop()
	})
}

// The same, and everything it sends is refused: the client waits for it, and does not turn in circles.
func TestServerThatDoesNotReadRefusals(t *testing.T) {
	for _, kind := range []Kind{StateOfTheWorld, Delta} {
		synctest.Test(t, func(t *testing.T) {
			ctrl := &control{play: func(_ int, s *end) error {
				_, _ = s.read()
				for n := 0; s.write(response(resource.Cluster, fmt.Sprint(n), "c")) == nil; n++ {
					time.Sleep(time.Second)
				}
				return nil
			}}
			c := make1(t, ctrl, &sink{offer: func(*Update) error { return errors.New("no") }}, func(c *Config) { c.Kind = kind })
			_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
			_ = c.Subscribe(resource.Listener, []string{"*"}, 30*time.Second)
			stop := run(t, c)
			time.Sleep(59 * time.Second)
			if n := c.Status().Types[0].Refused; n < 50 {
				t.Errorf("%d refused", n)
			}
			stop()
			time.Sleep(time.Second)
		})
	}
}

// A flood is taken no faster than it may come.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctrl := &control{play: func(_ int, s *end) error {
			go func() {
				for _, err := s.read(); err == nil; _, err = s.read() {
				}
			}()
			for n := 0; s.write(response(resource.Cluster, fmt.Sprint(n), "c")) == nil; n++ {
			}
			return nil
		}}
		s := &sink{}
		c := make1(t, ctrl, s, func(c *Config) { c.Rate, c.Burst = 10, 20 })
		_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
		stop := run(t, c)
		time.Sleep(100 * time.Second)
		synctest.Wait()
		stop()
		if n := len(s.all()); n < 1000 || n > 1025 {
			t.Errorf("%d in 100 seconds", n)
		}
	})
}

func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := make(chan *protocol.Refusal, 1)
		ctrl := &control{play: func(_ int, s *end) error {
			_, _ = s.read()
			_ = s.write(response(resource.Cluster, "1", "a"))
			if r, err := s.read(); err == nil {
				refused <- r.Error
			}
			return nil
		}}
		s := &sink{offer: func(*Update) error { panic("a secret") }}
		c := make1(t, ctrl, s, nil)
		_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
		stop := run(t, c)
		if r := <-refused; r == nil || strings.Contains(r.Message, "secret") || !strings.Contains(r.Message, "J803") {
			t.Error(r)
		}
		stop()
	})
}

// memory is a Store.
type memory struct {
	mu    sync.Mutex
	raw   []byte
	saves int
	err   error
}

func (m *memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.raw, m.err
}

func (m *memory) count() int {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saves
}

func (m *memory) Save(b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saves++
	if m.err == nil {
		m.raw = b
	}
	return m.err
}

func TestStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s := &sink{}
		with := func(c *Config) { c.Store = m }
		c := make1(t, &control{play: serve(response(resource.Cluster, "1", "a", "b"), response(resource.Secret, "1", "key"), response(resource.Listener, "1", "l"))}, s, with)
		for _, typ := range []string{resource.Cluster, resource.Listener} {
			_ = c.Subscribe(typ, []string{"*"}, 0)
		}
		_ = c.Subscribe(resource.Secret, []string{"key"}, 0)
		stop := run(t, c)
		time.Sleep(2 * time.Second)
		if m.count() != 1 || c.Status().Saved.IsZero() {
			t.Errorf("%d saves", m.saves)
		}
		stop()

		// The next run has no control plane.
		s = &sink{}
		c = make1(t, &control{open: func(context.Context, int) error { return errors.New("away") }}, s, with)
		for _, typ := range []string{resource.Cluster, resource.Listener} {
			_ = c.Subscribe(typ, []string{"*"}, 0)
		}
		_ = c.Subscribe(resource.Secret, []string{"key"}, 0)
		stop = run(t, c)
		s.expect(t, "restored Cluster a b", "restored Listener l")
		stop()
		if m.count() != 1 {
			t.Errorf("%d saves", m.saves)
		}

		// What cannot be read is left aside, and said.
		for _, broken := range []*memory{{raw: []byte("nonsense")}, {err: errors.New("sealed for another machine")}} {
			s = &sink{}
			c = make1(t, &control{play: serve(response(resource.Cluster, "2", "c"))}, s, func(c *Config) { c.Store = broken })
			_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
			stop = run(t, c)
			s.expect(t, "answered Cluster c")
			if c.Status().StoreError == "" {
				t.Error("nothing is said")
			}
			if broken.err != nil { // it is tried again
				time.Sleep(time.Hour)
				if n := broken.count(); n < 100 || n > 130 {
					t.Errorf("%d attempts in an hour", broken.saves)
				}
			}
			stop()
		}
	})
}

// What is kept is asked for each resource.
func TestStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s := &sink{}
		c := make1(t, &control{play: serve(response(resource.Cluster, "1", "a", "private"))}, s, func(c *Config) {
			c.Store, c.Stored = m, func(r *resource.Resource) bool { return r.Name != "private" }
		})
		_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
		stop := run(t, c)
		s.expect(t, "answered Cluster a private")
		stop()
		if all, err := decode(m.raw, keptLimits); err != nil || len(all) != 1 || len(all[0].Resources) != 1 || all[0].Resources[0].Name != "a" {
			t.Errorf("kept %v, %v", all, err)
		}
	})
}

// What is accepted just before the end is kept too.
func TestStoreAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s := &sink{}
		c := make1(t, &control{play: serve(response(resource.Cluster, "1", "a"))}, s, func(c *Config) {
			c.Store, c.SaveAfter, c.Stored = m, time.Hour, func(*resource.Resource) bool { return true }
		})
		_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
		stop := run(t, c)
		s.expect(t, "answered Cluster a")
		if m.count() != 0 {
			t.Error("too early")
		}
		stop()
		if m.count() != 1 || len(m.raw) == 0 {
			t.Error("not kept")
		}
	})
}

// After a refusal that left both sides apart there is a new stream at once, but not one after the other.
func TestAdrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctrl := &control{play: func(n int, s *end) error {
			for i := 0; ; i++ {
				if _, err := s.read(); err != nil {
					return nil
				}
				name := "good"
				if i%2 == 0 {
					name = "bad"
				}
				time.Sleep(time.Second)
				if s.write(response(resource.Cluster, fmt.Sprint(n, ".", i), name)) != nil {
					return nil
				}
			}
		}}
		s := &sink{offer: func(u *Update) error {
			if u.Changed[0].Name == "bad" {
				return errors.New("bad")
			}
			return nil
		}}
		c := make1(t, ctrl, s, nil)
		_ = c.Subscribe(resource.Cluster, []string{"*"}, 0)
		stop := run(t, c)
		time.Sleep(300 * time.Second)
		stop()
		time.Sleep(time.Second) // the server notices
		if n := ctrl.attempts(); n < 9 || n > 11 {
			t.Errorf("%d streams in 300 seconds", n)
		}
		for i := 1; i < len(ctrl.times); i++ {
			if d := ctrl.times[i].Sub(ctrl.times[i-1]); i > 1 && d < 30*time.Second {
				t.Errorf("a new stream after %v", d)
			}
		}
		if e := c.Status().LastError; !strings.Contains(e, "was refused") {
			t.Error(e)
		}
	})
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan *Request, 10)
		ctrl := &control{play: func(_ int, s *end) error {
			for r, err := s.read(); err == nil; r, err = s.read() {
				asked <- r
			}
			return nil
		}}
		c := make1(t, ctrl, &sink{}, nil)
		_ = c.Subscribe(resource.Endpoints, []string{"a"}, 0)
		stop := run(t, c)
		<-asked
		c.Refresh(resource.Endpoints, []string{"a"})
		if r := <-asked; !slices.Equal(r.Subscribe, []string{"a"}) {
			t.Error(r)
		}
		stop()
	})
}
