package sds

import (
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/internal/request"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Bounds on what one stream can make us hold.
const (
	maxNames = 1024
	maxParts = 10_000 // messages within a request: what a client says of itself
)

// stream is one client. There is one response at most that was not answered.
type stream struct {
	server *Server
	conn   attested.Stream
	delta  bool
	since  time.Time

	mu       sync.Mutex
	node     string
	agent    string
	asked    bool             // there was a request
	all      bool             // it wants whatever there is
	wanted   map[string]*told // by name
	nonces   uint64
	unheard  string   // the nonce of the response that was not answered
	inFlight []string // names in it
}

// told is what a client was told of a secret.
type told struct {
	named   bool   // it asked for it by name
	version string // that it was sent; "" for none
	absent  bool   // delta: it was told that there is none
	taken   string // version that it accepted
	refusal string
}

func (s *Server) serve(conn attested.Stream, delta bool) error {
	st := &stream{server: s, conn: conn, delta: delta, since: time.Now(), wanted: map[string]*told{}}
	s.mu.Lock()
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.streams, st)
		s.mu.Unlock()
	}()
	return st.run()
}

func (st *stream) run() error {
	requests, failed, ended := make(chan *request.Request), make(chan error, 1), make(chan struct{})
	defer close(ended)
	go func() {
		for {
			raw, err := st.conn.Recv()
			if err == nil {
				var r *request.Request
				if r, err = request.Read(raw, st.delta, maxParts); err != nil {
					err = &attested.Status{Code: attested.InvalidArgument, Message: "the request is not understood"}
				} else {
					select {
					case requests <- r:
						continue
					case <-ended:
						return
					}
				}
			}
			failed <- err
			return
		}
	}()
	for {
		now := st.server.snapshot()
		if message := st.next(now); message != nil {
			if err := st.conn.Send(message); err != nil {
				return err
			}
		}
		select {
		case r := <-requests:
			if err := st.take(r); err != nil {
				return err
			}
		case err := <-failed:
			if err == io.EOF {
				return nil
			}
			return err
		case <-now.replaced:
		}
	}
}

// take carries out a request.
func (st *stream) take(r *request.Request) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if r.Type != "" && r.Type != resource.Secret {
		return &attested.Status{Code: attested.InvalidArgument, Message: "this service is for " + resource.Secret}
	}
	if r.Node != nil {
		st.node, st.agent = r.Node.ID, r.Node.Agent
	}
	for _, n := range r.Subscribe {
		if err := resource.ValidName(n); err != nil {
			return &attested.Status{Code: attested.InvalidArgument, Message: err.Error()}
		}
	}
	if len(r.Subscribe) > maxNames || len(r.Initial) > maxNames {
		return tooMany()
	}
	st.answer(r)
	if st.delta {
		st.want(r)
	} else if r.Nonce == "" || r.Nonce == strconv.FormatUint(st.nonces, 10) { // else it was overtaken by the response on its way
		st.wantAll(r.Subscribe)
	}
	st.asked = true
	if len(st.wanted) > maxNames {
		return tooMany()
	}
	return nil
}

func tooMany() error {
	return &attested.Status{Code: attested.ResourceExhausted, Message: "more than " + strconv.Itoa(maxNames) + " names"}
}

// answer takes an acknowledgement or a refusal, where the request is one.
func (st *stream) answer(r *request.Request) {
	if r.Nonce == "" || r.Nonce != st.unheard {
		return
	}
	reason := ""
	if r.Refused {
		if reason = r.Reason; reason == "" {
			reason = "no reason was given"
		}
		st.server.refused(Refusal{Time: time.Now(), Names: slices.Clone(st.inFlight), Reason: reason})
	}
	for _, n := range st.inFlight {
		if t := st.wanted[n]; t != nil {
			if t.refusal = reason; reason == "" {
				t.taken = t.version
			}
		}
	}
	st.unheard, st.inFlight = "", nil
}

// want takes the names of a delta request.
func (st *stream) want(r *request.Request) {
	if !st.asked && len(r.Subscribe) == 0 && len(r.Unsubscribe) == 0 {
		st.all = true
	}
	for _, n := range r.Subscribe {
		if n == resource.Wildcard {
			st.all = true
			continue
		}
		// Where it is subscribed to already, the client has lost it.
		st.wanted[n] = &told{named: true, version: r.Initial[n], taken: r.Initial[n]}
	}
	for _, n := range r.Unsubscribe {
		if n == resource.Wildcard {
			st.all = false
			maps.DeleteFunc(st.wanted, func(_ string, t *told) bool { return !t.named })
			continue
		}
		delete(st.wanted, n)
	}
}

// wantAll takes the names of a request of the state of the world.
func (st *stream) wantAll(names []string) {
	st.all = len(names) == 0 || slices.Contains(names, resource.Wildcard)
	maps.DeleteFunc(st.wanted, func(n string, t *told) bool { return t.named && !slices.Contains(names, n) || !t.named && !st.all })
	for _, n := range names {
		if n != resource.Wildcard && st.wanted[n] == nil {
			st.wanted[n] = &told{named: true}
		}
	}
}

// next answers the next response; nil where there is nothing to say, or an answer is waited for.
func (st *stream) next(now *snapshot) []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.unheard != "" {
		return nil
	}
	if st.all {
		for n := range now.secrets {
			if st.wanted[n] == nil {
				st.wanted[n] = &told{}
			}
		}
	}
	var changed []Secret
	var removed []string
	for _, n := range slices.Sorted(maps.Keys(st.wanted)) {
		t := st.wanted[n]
		s, there := now.secrets[n]
		switch {
		case there && s.version != t.version:
			changed = append(changed, s)
			t.version, t.absent = s.version, false
		case !there && st.delta && (t.version != "" || !t.absent):
			removed = append(removed, n)
			t.version, t.absent = "", true
		}
	}
	if len(changed)+len(removed) == 0 {
		return nil
	}
	st.nonces++
	st.unheard = strconv.FormatUint(st.nonces, 10)
	st.inFlight = removed
	var m proto.Message
	if st.delta {
		response := &discovery.DeltaDiscoveryResponse{TypeUrl: resource.Secret, Nonce: st.unheard, RemovedResources: removed}
		for _, s := range changed {
			response.Resources = append(response.Resources, &discovery.Resource{Name: s.name, Version: s.version, Resource: s.any()})
		}
		m = response
	} else {
		response := &discovery.DiscoveryResponse{TypeUrl: resource.Secret, Nonce: st.unheard, VersionInfo: changed[0].version}
		for _, s := range changed {
			response.Resources = append(response.Resources, s.any())
		}
		m = response
	}
	for _, s := range changed {
		st.inFlight = append(st.inFlight, s.name)
	}
	raw, err := proto.Marshal(m)
	if err != nil { // names are valid UTF-8, and nothing else can be wrong
		return nil
	}
	return raw
}

func (s Secret) any() *anypb.Any { return &anypb.Any{TypeUrl: resource.Secret, Value: s.body} }

// show is the stream as it is shown.
func (st *stream) show(now *snapshot) Client {
	st.mu.Lock()
	defer st.mu.Unlock()
	c := Client{Node: st.node, Agent: st.agent, Delta: st.delta, Since: st.since, Secrets: []Held{}}
	for _, n := range slices.Sorted(maps.Keys(st.wanted)) {
		t := st.wanted[n]
		s, there := now.secrets[n]
		c.Secrets = append(c.Secrets, Held{Name: n, Version: t.taken, Synced: there && t.taken == s.version && t.refusal == "", Refusal: t.refusal})
	}
	return c
}
