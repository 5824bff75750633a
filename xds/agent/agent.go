package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/guard"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Prefix is in front of the names of policies in what came over xDS: no policy of the static file is called so, since those that are pushed
// are stacked on the floor, and those that are referred to as well.
const Prefix = "xds:"

// Target carries configurations out.
type Target interface {
	// Apply changes to a configuration, all of it or nothing. policies are those that it names, and perhaps others. It is called by one
	// goroutine at a time. The same pointer as the last time is a configuration in which nothing has changed: policies may have.
	Apply(c *config.Config, policies map[string]guard.Policy) error
}

// Subscriber is told what is wanted of a control plane. A client.Client is one.
type Subscriber interface {
	// Subscribe says what is wanted of a type from now on, in place of what was. What is new is to come within a time; 0 is for ever.
	Subscribe(typ string, names []string, within time.Duration) error
}

// Store keeps marks (guard.Marks) over restarts, as bytes. It has to seal them: whoever can write them can play back what is older.
type Store interface {
	Load() ([]byte, error) // nothing and no error where nothing is kept
	Save([]byte) error
}

// Options are what an Agent is made of beside the decisions.
type Options struct {
	// Fetch is how long a resource that others refer to is waited for: after that a cluster is used without endpoints. 0 is for ever. Nothing
	// is ever used without its routes or its policy.
	Fetch time.Duration
	Store Store // nil keeps serials in memory only
	Now   func() time.Time
	Log   *slog.Logger // nil drops
	// Translate is envoy.Translate, the default, or what tests put in its place.
	Translate func(envoy.Input) *envoy.Translation
}

// Agent is the Sink of a client. It is safe for concurrent use.
type Agent struct {
	limits    guard.Limits
	floor     *policy.Policy
	guard     *guard.Guard
	static    *config.Config
	policies  map[string]*policy.Policy // of the static file
	target    Target
	options   Options
	subscribe Subscriber

	mu        sync.Mutex
	accepted  envoy.Set          // as the control plane knows it
	late      map[envoy.Key]bool // what did not come in time, or does not exist
	used      *plan              // what was carried out last, or would be if it had not been withdrawn
	withdrawn bool               // for want of a control plane
	wanted    map[string][]string
	marks     *guard.Marks
	unsaved   bool          // marks are to be saved
	saving    chan struct{} // closed when they are; nil where nobody does it
	parsed    map[string]parsedPolicy
	status    Status
}

// New makes an Agent that is to change nothing beyond limits. floor is the policy that they name, nil where they name none; static is the
// configuration of the static file, and policies are its policies by their names. Nothing is applied before the first Offer: static is
// what the target does by then.
func New(limits guard.Limits, floor *policy.Policy, static *config.Config, policies map[string]*policy.Policy, target Target, options Options) (*Agent, error) {
	g, err := guard.New(limits, floor)
	if err != nil {
		return nil, err
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.Translate == nil {
		options.Translate = envoy.Translate
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	a := &Agent{
		limits: limits, floor: floor, guard: g, static: static, policies: policies, target: target, options: options,
		accepted: envoy.Set{}, late: map[envoy.Key]bool{}, wanted: map[string][]string{}, marks: new(guard.Marks), parsed: map[string]parsedPolicy{},
	}
	a.used = a.empty()
	a.status.Types = map[string]TypeStatus{}
	if options.Store != nil {
		raw, err := options.Store.Load()
		if err != nil {
			return nil, &attest.Error{Code: attest.CodeXDSKept, Check: "xds", Subject: "serials", Err: err}
		}
		if len(raw) > 0 {
			if a.marks, err = guard.ParseMarks(raw); err != nil {
				return nil, &attest.Error{Code: attest.CodeXDSKept, Check: "xds", Subject: "serials", Err: err, Hint: "serials that were accepted are not known any more: an older policy might be played back; remove the file if that is acceptable"}
			}
		}
	}
	return a, nil
}

// Start subscribes to all clusters and listeners. It is called once, before the subscriber begins to call Offer.
func (a *Agent) Start(s Subscriber) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.subscribe = s
	for _, typ := range []string{resource.Cluster, resource.Listener} {
		if err := s.Subscribe(typ, []string{resource.Wildcard}, a.options.Fetch); err != nil {
			return err
		}
	}
	return nil
}

// Replace puts other limits, another floor and another static configuration in the place of those of New, and has carry carry out what they make
// of what was accepted, as Target.Apply does: all of it or nothing. What was accepted has to keep to them, and what runs has to go on: a
// static policy that it refers to is still there.
func (a *Agent) Replace(limits guard.Limits, floor *policy.Policy, static *config.Config, policies map[string]*policy.Policy, carry func(*config.Config, map[string]guard.Policy) error) error {
	g, err := guard.New(limits, floor)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	before := struct {
		limits   guard.Limits
		floor    *policy.Policy
		guard    *guard.Guard
		static   *config.Config
		policies map[string]*policy.Policy
	}{a.limits, a.floor, a.guard, a.static, a.policies}
	a.limits, a.floor, a.guard, a.static, a.policies = limits, floor, g, static, policies
	p, err := a.plan(a.accepted, a.late)
	if err == nil {
		err = a.stops(p)
	}
	if err == nil {
		applied := p
		if a.withdrawn {
			applied = a.empty()
		}
		err = carry(applied.config, applied.policies)
	}
	if err != nil {
		a.limits, a.floor, a.guard, a.static, a.policies = before.limits, before.floor, before.guard, before.static, before.policies
		return err
	}
	a.used = p
	a.status.Applied = a.options.Now()
	a.ask()
	return nil
}

// stops says what runs now and would not with p, for want of something that the static configuration had.
func (a *Agent) stops(p *plan) error {
	for _, key := range sorted(a.used.set) {
		_, waited := a.used.translation.Warming[key]
		waits, wait := p.translation.Warming[key]
		if _, there := p.set[key]; waited || there && !wait {
			continue
		}
		want := "what it refers to"
		if len(waits) > 0 {
			want = name(waits[0])
		}
		return &problem{key, &attest.Error{Code: attest.CodeConfigMissing, Check: "xds", Want: want}}
	}
	return nil
}

// named are the types that are subscribed to by name: by what others refer to.
var named = []string{resource.ReferenceValues, resource.AttestationPolicy, resource.Endpoints, resource.Secret, resource.Route}

// Offer judges an update as a whole, and carries it out. It implements client.Sink. The error is a *client.Rejection.
func (a *Agent) Offer(u *client.Update) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	candidate, late := maps.Clone(a.accepted), maps.Clone(a.late)
	for _, r := range u.Changed {
		candidate.Add(r)
		delete(late, envoy.Key{Type: r.Type, Name: r.Name})
	}
	for _, name := range u.Removed {
		key := envoy.Key{Type: u.Type, Name: name}
		if _, there := a.used.set[key]; !there {
			late[key] = true
		}
		delete(candidate, key)
	}
	parsed := maps.Clone(a.parsed)
	raised, err := a.offer(candidate, late, u.Changed, len(u.Removed) > 0, u.Cause == protocol.Answered)
	a.note(u, err)
	if err != nil {
		a.parsed = parsed
		return rejection(u, err)
	}
	a.raise(raised)
	a.ask()
	// Names cost a control plane nothing: what nobody has any more is not kept for the next time.
	maps.DeleteFunc(a.parsed, func(name string, _ parsedPolicy) bool {
		key := envoy.Key{Type: resource.AttestationPolicy, Name: name}
		return !in(a.accepted, key) && !in(a.used.set, key)
	})
	return nil
}

// offer carries a candidate out, and makes it what was accepted. removed says that something is gone besides, and heard that it comes from a
// control plane that is there. It answers the serials that were accepted with it.
func (a *Agent) offer(candidate envoy.Set, late map[envoy.Key]bool, changed []resource.Resource, removed, heard bool) ([]guard.Versioned, error) {
	var p *plan
	var err error
	if !removed {
		p, err = a.denial(candidate, changed)
	}
	if p == nil && err == nil {
		p, err = a.plan(candidate, late)
	}
	if err != nil {
		return nil, err
	}
	raised, err := a.versions(changed, p.whole)
	if err == nil {
		err = a.marks.Check(raised)
	}
	if err == nil {
		err = a.apply(p, heard)
	}
	if err != nil {
		return nil, err
	}
	a.accepted, a.late = candidate, late
	return raised, nil
}

// Missing implements client.Sink: what others refer to did not come in time.
func (a *Agent) Missing(typ string, names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	late := maps.Clone(a.late)
	for _, name := range names {
		late[envoy.Key{Type: typ, Name: name}] = true
	}
	a.options.Log.Warn("the control plane did not send what it refers to", "type", short(typ), "names", names)
	if _, err := a.offer(a.accepted, late, nil, false, false); err != nil {
		a.options.Log.Error("the configuration stays as it is", "code", string(attest.CodeOf(err)), "error", err.Error())
		return
	}
	a.ask()
}

// Away says for how long no control plane has been there; 0 is that one is. What xDS has brought is withdrawn once that is longer than the
// limits allow, and comes back with the control plane. It is to be called now and then. The error is the target's: it is to be tried again.
func (a *Agent) Away(since time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	most := a.limits.LongestOutage()
	over := most > 0 && since >= most
	switch {
	case over == a.withdrawn, !over && since > 0: // withdrawn it stays until somebody is there again
		return nil
	case over:
		p := a.empty()
		if err := a.target.Apply(p.config, p.policies); err != nil {
			return err
		}
		a.withdrawn = true
		a.options.Log.Error("what the control plane has sent is not used any more", "away", since.String(), "limit", most.String(), "code", string(attest.CodeControlPlaneAway))
	default:
		if err := a.target.Apply(a.used.config, a.used.policies); err != nil {
			return err
		}
		a.withdrawn = false
		a.options.Log.Info("what the control plane has sent is used again")
	}
	return nil
}

// apply carries a plan out, where it is another one. What was withdrawn comes back with a control plane alone.
func (a *Agent) apply(p *plan, heard bool) error {
	if a.withdrawn && !heard {
		a.used = p
		return nil
	}
	if !a.withdrawn && p.same(a.used) {
		p.config, p.policies = a.used.config, a.used.policies
	} else if err := a.target.Apply(p.config, p.policies); err != nil {
		return err
	}
	a.used, a.withdrawn = p, false
	a.status.Applied = a.options.Now()
	return nil
}

// ask subscribes to what is referred to now, and forgets what nobody refers to.
func (a *Agent) ask() {
	for _, typ := range named {
		names := slices.Concat(a.used.whole.Needs[typ], a.used.translation.Needs[typ])
		slices.Sort(names)
		names = slices.Compact(names)
		if slices.Equal(names, a.wanted[typ]) {
			continue
		}
		if a.subscribe == nil {
			continue
		}
		if err := a.subscribe.Subscribe(typ, names, a.options.Fetch); err != nil {
			a.options.Log.Error("subscription", "type", short(typ), "error", err.Error())
			continue
		}
		a.wanted[typ] = names
		forget := func(k envoy.Key) bool {
			_, wanted := slices.BinarySearch(names, k.Name)
			return k.Type == typ && !wanted
		}
		maps.DeleteFunc(a.accepted, func(k envoy.Key, _ resource.Resource) bool { return forget(k) })
		maps.DeleteFunc(a.late, func(k envoy.Key, _ bool) bool { return forget(k) })
	}
}

// versions are the serials of what changed.
func (a *Agent) versions(changed []resource.Resource, t *envoy.Translation) (all []guard.Versioned, err error) {
	for _, r := range changed {
		switch r.Type {
		case resource.AttestationPolicy:
			p := t.Policies[r.Name]
			content, err := p.Encode()
			if err != nil {
				return nil, &problem{envoy.Key{Type: r.Type, Name: r.Name}, err}
			}
			all = append(all, guard.Versioned{Type: r.Type, Name: r.Name, Serial: p.Serial, Content: content})
		case resource.ReferenceValues:
			v := t.References[r.Name]
			content, err := v.Encode()
			if err != nil {
				return nil, &problem{envoy.Key{Type: r.Type, Name: r.Name}, err}
			}
			all = append(all, guard.Versioned{Type: r.Type, Name: r.Name, Serial: v.Serial, Content: content})
		}
		if !a.limits.Versions {
			continue
		}
		n, err := strconv.ParseUint(r.Version, 10, 64)
		if err != nil || strconv.FormatUint(n, 10) != r.Version {
			return nil, &problem{envoy.Key{Type: r.Type, Name: r.Name}, &attest.Error{
				Code: attest.CodeRollback, Check: "limits.versions", Subject: "version", Got: fmt.Sprintf("%.100q", r.Version), Want: "a whole number: the limits have ordered_versions",
			}}
		}
		all = append(all, guard.Versioned{Type: "version of " + r.Type, Name: r.Name, Serial: n, Content: r.Body})
	}
	return all, nil
}

// raise notes serials that were accepted, and has them kept.
func (a *Agent) raise(accepted []guard.Versioned) {
	raised := a.marks.Raise(accepted)
	if a.options.Store == nil || !raised && (len(accepted) == 0 || !a.status.Unkept) {
		return
	}
	if a.unsaved = true; a.saving == nil {
		a.saving = make(chan struct{})
		go a.keep(a.saving)
	}
}

// keep saves serials until all are. What was accepted is in force by then, and updates go on meanwhile: neither a denial nor the one
// after it waits for a disk, which whoever has the host could fill, or stop. Nothing older is let in by that: this process goes by the
// serials that it has in memory, and an end before they are saved is an end before anything that depends on them was. The next process
// then begins with older serials beside resources that are as old, which is where it would be had it not been told; what the client
// keeps of newer ones is offered anew and raises them. Where serials are saved and those resources are not, the old ones are refused.
func (a *Agent) keep(done chan struct{}) {
	defer close(done)
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.unsaved {
		a.unsaved = false
		marks := a.marks.Clone()
		a.mu.Unlock()
		err := a.options.Store.Save(marks.Encode())
		a.mu.Lock()
		// Where that fails they hold until the end of the process: what was accepted is not refused for want of a disk.
		if a.status.Unkept = err != nil; err != nil {
			a.options.Log.Error("serials are not kept", "error", err.Error())
		}
	}
	a.saving = nil
}

// Kept waits until the serials of what was accepted are saved, or could not be. It is for the end of a process.
func (a *Agent) Kept() {
	a.mu.Lock()
	saving := a.saving
	a.mu.Unlock()
	if saving != nil {
		<-saving
	}
}

// problem is what is wrong with a resource.
type problem struct {
	key envoy.Key
	err error
}

func (p *problem) Error() string {
	return short(p.key.Type) + " " + strconv.Quote(p.key.Name) + ": " + p.err.Error()
}

func (p *problem) Unwrap() error { return p.err }

// short is the last word of the URL of a type.
func short(typ string) string { return typ[strings.LastIndexByte(typ, '.')+1:] }

// Bounds of what a rejection says.
const (
	maxReasons = 16
	maxReason  = 400
)

// rejection says what an update is refused for, by resource where it is one of the update's.
func rejection(u *client.Update, err error) *client.Rejection {
	out := &client.Rejection{Resources: map[string]string{}}
	changed := map[string]bool{}
	for _, r := range u.Changed {
		changed[r.Name] = true
	}
	n := 0
	var walk func(error)
	walk = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				walk(e)
			}
			return
		}
		if n++; n > maxReasons {
			return
		}
		text := err.Error()
		if len(text) > maxReason {
			text = strings.ToValidUTF8(text[:maxReason], "") + "…"
		}
		key, known := about(err)
		if p := (*problem)(nil); errors.As(err, &p) {
			text = strings.TrimPrefix(text, short(p.key.Type)+" "+strconv.Quote(p.key.Name)+": ")
		}
		if known && key.Type == u.Type && changed[key.Name] {
			out.Resources[key.Name] = strings.TrimPrefix(out.Resources[key.Name]+"; "+text, "; ")
			return
		}
		out.Reason = strings.TrimPrefix(out.Reason+"; "+err.Error(), "; ")
	}
	walk(err)
	return out
}

// about says which resource an error is about.
func about(err error) (envoy.Key, bool) {
	var p *problem
	if errors.As(err, &p) {
		return p.key, true
	}
	var v *guard.Violation
	if !errors.As(err, &v) {
		return envoy.Key{}, false
	}
	switch v.Part {
	case guard.PartListener:
		return envoy.Key{Type: resource.Listener, Name: v.Name}, true
	case guard.PartCluster:
		return envoy.Key{Type: resource.Cluster, Name: v.Name}, true
	case guard.PartPolicy, "AttestationPolicy":
		return envoy.Key{Type: resource.AttestationPolicy, Name: v.Name}, true
	case "ReferenceValues":
		return envoy.Key{Type: resource.ReferenceValues, Name: v.Name}, true
	}
	return envoy.Key{}, false
}
