package route

import (
	"time"

	"github.com/jurat-tls/jurat/proxy/message"
)

// Action is what is done with a request. The zero value is none.
type Action uint8

// The actions.
const (
	Forward  Action = iota + 1 // to Cluster
	Redirect                   // to Location
	Respond                    // with DirectResponse
)

// Timeouts of a forwarded request; 0 is no limit.
type Timeouts struct {
	Request    time.Duration // from the end of the request to the end of the answer, all tries together
	PerTry     time.Duration // for one try
	Idle       time.Duration // of a stream on which nothing moves
	PerTryIdle time.Duration // of one try on which nothing moves
	GRPC       time.Duration // for a gRPC call at most, from its beginning
	Defaults   bool          // Request is the default, and not what the configuration says
}

// Decision is the route that a request belongs to. It is a value that holds no memory of the request. The zero value is
// none; of it only Action may be asked.
type Decision struct {
	host   *virtualHost
	entry  *entry
	target *target
	keep   bool // escaped slashes
}

// Action says which of the other methods are of use.
func (d Decision) Action() Action {
	if d.entry == nil {
		return 0
	}
	return d.entry.action
}

// VirtualHost is its name.
func (d Decision) VirtualHost() string { return d.host.name }

// Route is its name, "" where it has none.
func (d Decision) Route() string { return d.entry.name }

// Cluster is where a request is forwarded to.
func (d Decision) Cluster() string { return d.target.cluster }

// Timeouts are those of the route, with defaults filled in.
func (d Decision) Timeouts() Timeouts { return d.entry.timeouts }

// Retry is nil, of which all methods but BackOff may be called, where nothing is tried again.
func (d Decision) Retry() *Retry { return d.entry.retry }

// Mirrors are where copies go. They are shared, and not to be changed.
func (d Decision) Mirrors() []Mirror { return d.entry.mirrors }

// DirectResponse answers status and body.
func (d Decision) DirectResponse() (status int, body string) {
	return d.entry.direct.Status, d.entry.direct.Body
}

// Location answers the status and the URL of a redirect, for a request that came over scheme. The error is ErrPath where
// there is no such URL.
func (d Decision) Location(r *message.Request, scheme string) (status int, location string, err error) {
	location, err = d.entry.location(r, scheme, d.keep)
	return d.entry.redirect.Code, location, err
}

// Rewrite turns r into what is forwarded: path, authority and fields, which it edits in place. It is called once, whatever
// the number of tries. The error is ErrPath where a rewrite left no path that could be forwarded; r is unchanged then.
func (d Decision) Rewrite(r *message.Request) error {
	if r.Path != "" {
		path, query := split(r.Path)
		rewritten, err := d.entry.rewrite.apply(path, &d.entry.match, d.keep)
		if err != nil {
			return err
		}
		if rewritten != path {
			r.Path = rewritten + query
		}
	}
	if d.entry.host != "" {
		r.Authority = d.entry.host
	}
	r.Fields = apply(d.target.edits.request, r.Fields)
	return nil
}

// EditResponse makes the route's edits in the memory of an answer's fields, and answers what they have become.
func (d Decision) EditResponse(f message.Fields) message.Fields {
	return apply(d.target.edits.response, f)
}
