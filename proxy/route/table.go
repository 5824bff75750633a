package route

import (
	"errors"

	"github.com/jurat-tls/jurat/proxy/message"
)

// ErrNoRoute is the answer to a request that no route matches: 404 (Not Found).
var ErrNoRoute = errors.New("route: no route matches")

// Table is compiled routes. The zero Table has none.
type Table struct {
	ignorePort, keepEscapedSlashes bool

	exact              map[string]*virtualHost
	suffixes, prefixes byLength
	any                *virtualHost
}

type virtualHost struct {
	name   string
	routes []*entry
}

// entry is a compiled route.
type entry struct {
	name     string
	match    match
	action   Action
	plain    target   // where there are no targets
	targets  []target // weighted clusters
	total    uint64   // of their weights
	rewrite  rewriter
	host     string
	timeouts Timeouts
	retry    *Retry
	mirrors  []Mirror
	hash     []hashPolicy
	redirect redirect
	direct   DirectResponse
}

type target struct {
	cluster string
	upTo    uint64 // the sum of the weights up to this one's
	edits   edits
}

// Match finds the route of r: the first that matches, of the virtual host that r's authority belongs to. random, evenly
// distributed, chooses among weighted clusters. Match puts r.Path into canonical form, and changes nothing else. The error
// is ErrPath or ErrNoRoute.
func (t *Table) Match(r *message.Request, random uint64) (Decision, error) {
	tunnel := r.Method == "CONNECT" && r.Path == ""
	if !tunnel {
		path, err := Normalize(r.Path, t.keepEscapedSlashes)
		if err != nil {
			return Decision{}, err
		}
		r.Path = path
	}
	host := t.virtualHost(r.Authority)
	if host == nil {
		return Decision{}, ErrNoRoute
	}
	path, query := split(r.Path)
	for _, e := range host.routes {
		if e.match.matches(r, path, query, tunnel) {
			return Decision{host, e, e.choose(random), t.keepEscapedSlashes}, nil
		}
	}
	return Decision{}, ErrNoRoute
}

func (e *entry) choose(random uint64) *target {
	if len(e.targets) == 0 {
		return &e.plain
	}
	point := random % e.total
	for i := range e.targets {
		if point < e.targets[i].upTo {
			return &e.targets[i]
		}
	}
	return &e.plain // not reached: point is less than the last sum
}

// split answers the path of a target, and its query with the question mark.
func split(target string) (path, query string) {
	for i := range len(target) {
		if target[i] == '?' {
			return target[:i], target[i:]
		}
	}
	return target, ""
}
