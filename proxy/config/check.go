package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// MinReattest keeps peers from being asked faster than a TEE can answer.
const MinReattest = time.Second

const maxErrors = 20

// Check reports what is not allowed. The error joins an *attest.Error for each such value, the first 20 of them, whose
// Subject is its place as the file has it, such as "listen[0].http.virtual_hosts[0].routes[2].match.path".
func (c *Config) Check() error {
	k := c.checker()
	if len(c.Listeners) == 0 {
		k.missing("listen", "an address to listen on")
	}
	k.names(c)
	for i := range c.Listeners {
		k.listener(fmt.Sprintf("listen[%d]", i), c, &c.Listeners[i])
	}
	for i := range c.Clusters {
		k.cluster(fmt.Sprintf("clusters[%d]", i), &c.Clusters[i])
	}
	k.plaintext(c)
	k.shared(c)
	return errors.Join(k.errs...)
}

// Table compiles the routes of a listener. Clusters that they name have to be there, and a copy of a request goes to an
// attested cluster alone, or to where plaintext goes already: a plain one, beside routes to plain ones only. The error is
// that of Check, with places within r.
func (c *Config) Table(r *route.Config) (*route.Table, error) {
	k := c.checker()
	for i := range r.VirtualHosts {
		for j := range r.VirtualHosts[i].Routes {
			if a := r.VirtualHosts[i].Routes[j].Route; a != nil {
				k.action(fmt.Sprintf("virtual_hosts[%d].routes[%d].route", i, j), a)
			}
		}
	}
	if len(r.VirtualHosts) == 0 {
		k.missing("virtual_hosts", "a virtual host")
	}
	t, err := route.Compile(*r, func(cluster string) bool {
		c := k.clusters[cluster]
		return c == nil || c.Attested != nil // one that is not there was reported
	})
	k.take("", err)
	if len(k.errs) > 0 {
		return nil, errors.Join(k.errs...)
	}
	return t, nil
}

type checker struct {
	clusters map[string]*Cluster
	known    []string // their names, in order
	errs     []error
}

func (c *Config) checker() *checker {
	k := &checker{clusters: map[string]*Cluster{}}
	for i := range c.Clusters {
		name := c.Clusters[i].Name
		k.known = append(k.known, name)
		k.clusters[name] = &c.Clusters[i]
	}
	return k
}

func (k *checker) add(err *attest.Error) {
	if len(k.errs) < maxErrors {
		k.errs = append(k.errs, err)
	}
}

func (k *checker) bad(at, got, want string) {
	k.add(&attest.Error{Code: attest.CodeConfigValue, Check: "config", Subject: at, Got: got, Want: want})
}

func (k *checker) missing(at, want string) {
	k.add(&attest.Error{Code: attest.CodeConfigMissing, Check: "config", Subject: at, Want: want})
}

// take adds errors, joined or not, that others have found in the value at a place.
func (k *checker) take(at string, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			k.take(at, e)
		}
		return
	}
	var coded *attest.Error
	if !errors.As(err, &coded) {
		return
	}
	e := *coded
	e.Subject = strings.Trim(at+"."+e.Subject, ".")
	k.add(&e)
}

func quote(s string) string { return fmt.Sprintf("%.100q", s) }

// one reports which of the keys is set, where it is exactly one.
func (k *checker) one(at string, keys []string, set ...bool) string {
	var found []string
	for i, s := range set {
		if s {
			found = append(found, keys[i])
		}
	}
	want := "one of " + strings.Join(keys[:len(keys)-1], ", ") + " and " + keys[len(keys)-1]
	switch len(found) {
	case 0:
		k.missing(at, want)
	case 1:
		return found[0]
	default:
		k.bad(at, strings.Join(found, " and "), want)
	}
	return ""
}

// names checks that no two are called the same.
func (k *checker) names(c *Config) {
	clusters := map[string]bool{}
	for i := range c.Clusters {
		at, name := fmt.Sprintf("clusters[%d].name", i), c.Clusters[i].Name
		switch {
		case name == "":
			k.missing(at, "a name")
		case clusters[name]:
			k.bad(at, quote(name), "a name that no other cluster has")
		}
		clusters[name] = true
	}
	labels, addresses := map[string]bool{}, map[string]bool{}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		at := fmt.Sprintf("listen[%d]", i)
		switch {
		case l.Address != "" && addresses[l.Address]:
			k.bad(at+".address", quote(l.Address), "an address that no other listener has")
		case l.Label() != "" && labels[l.Label()]: // also that of one which is called by its address
			k.bad(at+".name", quote(l.Label()), "a name that no other listener has")
		}
		labels[l.Label()], addresses[l.Address] = true, true
	}
}

func (k *checker) listener(at string, c *Config, l *Listener) {
	if l.Address == "" {
		k.missing(at+".address", "an address to listen on")
	} else {
		k.take(at+".address", CheckAddress(l.Address))
	}
	k.admission(at, l)
	if len(l.Chains) == 0 || !reflect.DeepEqual(l.Serving, Serving{}) {
		k.serving(at, c, l, &l.Serving)
	}
	if l.Chains != nil {
		k.chains(at, c, l)
	} else if l.DetectHTTP {
		k.bad(at+".detect_http", "true", "chains beside it")
	}
	if l.Transparent != "" {
		k.word(at+".transparent", l.Transparent, "redirect", "tproxy")
		switch c := k.clusters[l.Cluster]; {
		case len(l.Chains) > 0:
		case !l.TCP || !l.Plain:
			k.bad(at+".transparent", quote(l.Transparent), "tcp and plain beside it, or chains")
		case c != nil && c.Attested == nil:
			k.bad(at+".cluster", quote(l.Cluster)+", which is not attested", "an attested cluster: the addresses are the clients' choice")
		}
	}
	number := func(key string, n int) {
		if n < 0 {
			k.bad(at+".limits."+key, strconv.Itoa(n), "0 or above")
		}
	}
	number("connections", l.Limits.Connections)
	number("handshakes", l.Limits.Handshakes)
	k.times(at+".limits", &l.Limits.Times)
}

// chains checks what becomes of some connections, and that it is clear of which.
func (k *checker) chains(at string, c *Config, l *Listener) {
	if len(l.Chains) == 0 {
		k.missing(at+".chains", "a chain")
	}
	_, err := chain.Compile(l.Matches())
	k.take(at, err)
	labels := map[string]bool{Rest: l.Serves()}
	for i := range l.Chains {
		ch, at := &l.Chains[i], fmt.Sprintf("%s.chains[%d]", at, i)
		if label := ch.Label(); labels[label] && (ch.Name != "" || err == nil) { // of two without a name, their matches are the matter
			k.bad(at+".name", quote(label), "a name that no other chain has")
		}
		labels[ch.Label()] = true
		k.serving(at, c, l, &ch.Serving)
		k.times(at+".times", &ch.Times)
	}
}

// serving checks what becomes of connections of a listener.
func (k *checker) serving(at string, c *Config, l *Listener, s *Serving) {
	k.clients(at, l, s)
	k.public(at+".public", s)
	switch k.one(at, []string{"to", "cluster", "http", "passthrough", "forward"}, s.To != "", s.Cluster != "", s.HTTP != nil, len(s.Passthrough) > 0, len(s.Forward) > 0) {
	case "to":
		service, err := ParseService(s.To)
		k.take(at+".to", err)
		if s.TCP && service.Scheme != "" {
			k.bad(at+".to", quote(s.To), "host:port or unix:/path for raw TCP")
		}
		if err == nil && !s.UnsafeTo && !service.Local() {
			k.bad(at+".to", quote(s.To)+", which is not this machine and would get everything in plain", "a loopback address or a unix socket, an attested cluster, or unsafe_to: true")
		}
	case "cluster":
		k.refer(at+".cluster", s.Cluster, s.TCP)
	case "http":
		_, err := c.Table(s.HTTP)
		k.take(at+".http", err)
	case "passthrough":
		k.passthrough(at, s)
	case "forward":
		k.forward(at, s)
	}
	if s.Credentials != "" && len(s.Forward) == 0 {
		k.bad(at+".credentials", quote(s.Credentials), "forward beside it")
	}
	if s.UnsafeTo && s.To == "" {
		k.bad(at+".unsafe_to", "true", "to beside it")
	}
	if s.TCP && s.To == "" && s.Cluster == "" {
		k.bad(at+".tcp", "true", "to or cluster beside it")
	}
	if l.Transparent != "" {
		return
	}
	for _, name := range s.Clusters() {
		if c := k.clusters[name]; c != nil && c.OriginalDestination != nil {
			k.bad(at, "the cluster "+quote(name)+", which is where connections were going", "clusters with endpoints: only a transparent listener knows where they were going")
		}
	}
}

// admission checks who may connect.
func (k *checker) admission(at string, l *Listener) {
	plain := l.Plain || slices.ContainsFunc(l.Chains, func(c Chain) bool { return c.Plain })
	if l.UnsafeListen && !plain {
		k.bad(at+".unsafe_listen", "true", "plain beside it")
	}
	if l.ProxyProtocol != nil && len(l.ProxyProtocol) == 0 {
		k.missing(at+".proxy_protocol", "the addresses of those who send the header; 0.0.0.0/0 and ::/0 are all")
	}
	for i, s := range l.ProxyProtocol {
		_, err := ParsePrefix(s)
		k.take(fmt.Sprintf("%s.proxy_protocol[%d]", at, i), err)
	}
	if plain && !l.UnsafeListen && l.Address != "" && !Local(l.Address) {
		k.bad(at+".address", l.Address+", which other machines can reach in plain", "a loopback address or a unix socket, or unsafe_listen: true")
	}
}

// clients checks what clients have to prove.
func (k *checker) clients(at string, l *Listener, s *Serving) {
	k.reattest(at+".reattest", s.Reattest)
	switch {
	case s.Require != "" && s.Plain:
		k.bad(at+".require", quote(s.Require), "clients that are not plain: those show no evidence")
	case s.Require != "" && len(s.Passthrough) > 0:
		k.bad(at+".require", quote(s.Require), "none: TLS that is not ended here shows no evidence")
	case s.Require == "" && s.Reattest != 0:
		k.add(&attest.Error{
			Code: attest.CodeConfigMissing, Check: "config", Subject: at + ".reattest",
			Got: s.Reattest.String() + " for clients that are asked for no evidence", Want: "require beside it",
		})
	}
	if s.Plain && len(s.Passthrough) > 0 {
		k.bad(at+".plain", "true", "no plain clients beside passthrough, which is of TLS")
	}
}

func (k *checker) forward(at string, s *Serving) {
	if !s.Plain {
		k.missing(at+".plain", "plain: true, since programs that ask a proxy know nothing of evidence")
	}
	for i, f := range s.Forward {
		at := fmt.Sprintf("%s.forward[%d]", at, i)
		if len(f.Hosts) == 0 {
			k.missing(at+".hosts", "a host, or * for any at all")
		}
		for j, h := range f.Hosts {
			if _, err := connect.ParsePattern(h); err != nil {
				k.bad(fmt.Sprintf("%s.hosts[%d]", at, j), quote(h), "HOST[:PORT], *.example or *")
			}
		}
		if f.Require == "" {
			k.missing(at+".require", "a policy")
		}
		k.reattest(at+".reattest", f.Reattest)
	}
}

func (k *checker) passthrough(at string, s *Serving) {
	seen := map[string]bool{}
	for i, p := range s.Passthrough {
		at := fmt.Sprintf("%s.passthrough[%d]", at, i)
		if len(p.Names) == 0 {
			k.missing(at+".server_names", "a name, or * for all others")
		}
		for j, n := range p.Names {
			at := fmt.Sprintf("%s.server_names[%d]", at, j)
			key := strings.ToLower(n)
			switch {
			case !isServerName(n):
				k.bad(at, quote(n), "pay.example, *.example or *")
			case seen[key]:
				k.bad(at, quote(n), "a name that is not there before")
			}
			seen[key] = true
		}
		if p.Cluster == "" {
			k.missing(at+".cluster", "the name of a cluster")
		}
		k.refer(at+".cluster", p.Cluster, true)
	}
}

// refer checks a reference to a cluster, which gets raw bytes or requests.
func (k *checker) refer(at, name string, raw bool) {
	c := k.clusters[name]
	switch {
	case name == "": // reported by whoever needs one
	case c == nil:
		k.bad(at, quote(name), k.choice())
	case !raw && c.ProxyProtocol != "":
		k.bad(at, quote(name)+", which gets PROXY headers", "a cluster without proxy_protocol: requests of several clients share a connection")
	}
}

// choice says which clusters there are.
func (k *checker) choice() string {
	const some = 8
	switch n := len(k.known); {
	case n == 0:
		return "a cluster, of which there is none"
	case n > some:
		return "one of the clusters " + strings.Join(k.known[:some], ", ") + " …"
	default:
		return "one of the clusters " + strings.Join(k.known, ", ")
	}
}

// action checks the clusters of a route.
func (k *checker) action(at string, a *route.RouteAction) {
	k.refer(at+".cluster", a.Cluster, false)
	for i, w := range a.WeightedClusters {
		k.refer(fmt.Sprintf("%s.weighted_clusters[%d].name", at, i), w.Name, false)
	}
	for i, m := range a.RequestMirrorPolicies {
		k.refer(fmt.Sprintf("%s.request_mirror_policies[%d].cluster", at, i), m.Cluster, false)
	}
}

func (k *checker) times(at string, t *Times) {
	k.notNegative(at+".handshake_timeout", t.Handshake)
	k.notNegative(at+".header_timeout", t.Header)
	k.notNegative(at+".keep_alive", t.KeepAlive)
}

func (k *checker) notNegative(at string, d time.Duration) {
	if d < 0 {
		k.bad(at, d.String(), "0 or above")
	}
}

func (k *checker) reattest(at string, d time.Duration) {
	if d != 0 && d < MinReattest {
		k.bad(at, d.String(), "at least "+MinReattest.String())
	}
}

func (k *checker) word(at, got string, words ...string) {
	if !slices.Contains(words, got) {
		k.bad(at, quote(got), "one of "+strings.Join(words, ", "))
	}
}

func (k *checker) cluster(at string, c *Cluster) {
	_, err := upstream.New(c.Config, nil, nil)
	k.take(at, err)
	if c.Protocol != "" {
		k.word(at+".protocol", c.Protocol, "auto", "http1", "http2")
	}
	if c.ProxyProtocol != "" {
		k.word(at+".proxy_protocol", c.ProxyProtocol, "v1", "v2")
	}
	k.notNegative(at+".connect_timeout", c.ConnectTimeout)
	if a := c.Attested; a != nil {
		if a.Require == "" {
			k.missing(at+".attested.require", "the policy that endpoints have to meet")
		}
		if a.Name != "" && !isName(a.Name) {
			k.bad(at+".attested.name", quote(a.Name), "a DNS name or an IP address")
		}
		k.reattest(at+".attested.reattest", a.Reattest)
	}
	switch k.one(at, []string{"endpoints", "localities", "dns", "original_destination"}, len(c.Endpoints) > 0, c.Localities != nil, c.DNS != nil, c.OriginalDestination != nil) {
	case "endpoints":
		k.endpoints(at+".endpoints", c.Endpoints)
	case "localities":
		for i, l := range c.Localities {
			at := fmt.Sprintf("%s.localities[%d]", at, i)
			if l.Priority > upstream.MaxPriority {
				k.bad(at+".priority", strconv.FormatUint(uint64(l.Priority), 10), fmt.Sprintf("0 to %d", upstream.MaxPriority))
			}
			k.endpoints(at+".endpoints", l.Endpoints)
		}
	case "dns":
		k.dns(at+".dns", c.DNS)
	case "original_destination":
		if c.HealthCheck != nil {
			k.bad(at+".health_check", "health checks", "none: what is there is known from connections only")
		}
		if c.OutlierDetection != nil {
			k.bad(at+".outlier_detection", "outlier detection", "none: no endpoint could take the place of another")
		}
		if c.OriginalDestination.UnsafePlain && c.Attested != nil {
			k.bad(at+".original_destination.unsafe_plain", "true", "no attested beside it")
		}
	}
}

// plaintext checks that clusters get what was protected up to here in plain on this machine alone, or say otherwise. One that gets
// nothing but TLS which is not ended here may be anywhere.
func (k *checker) plaintext(c *Config) {
	opaque := c.Opaque()
	for i := range c.Clusters {
		c, at := &c.Clusters[i], fmt.Sprintf("clusters[%d]", i)
		switch {
		case c.UnsafePlain && (c.Attested != nil || c.OriginalDestination != nil):
			k.bad(at+".unsafe_plain", "true", "neither attested nor original_destination, which says so itself, beside it")
		case c.UnsafePlain, c.Attested != nil, opaque[c.Name]:
		default:
			for place, address := range c.Away() {
				if checkEndpoint(address) { // of others something else was said
					k.bad(at+"."+place, quote(address)+", which is not this machine and would get everything in plain", "a loopback address or a unix socket, attested, or unsafe_plain: true")
				}
			}
		}
	}
}

func (k *checker) endpoints(at string, endpoints []upstream.EndpointConfig) {
	for i, e := range endpoints {
		at := fmt.Sprintf("%s[%d]", at, i)
		if !checkEndpoint(e.Address) {
			k.bad(at+".address", quote(e.Address), "host:port or unix:/path")
		}
		if e.Hostname != "" && !isName(e.Hostname) {
			k.bad(at+".hostname", quote(e.Hostname), "a DNS name or an IP address")
		}
	}
}

func (k *checker) dns(at string, d *upstream.DNS) {
	if len(d.Names) == 0 {
		k.missing(at+".names", "a name")
	}
	for i, n := range d.Names {
		if n.Host != "" && !isHost(n.Host) {
			k.bad(fmt.Sprintf("%s.names[%d].host", at, i), quote(n.Host), "a DNS name or an IP address, without a port")
		}
	}
	_, err := upstream.NewResolution(*d, nil, nil, nil)
	k.take(at, err)
}
