package protocol

import (
	"errors"
	"fmt"
	"maps"
	"time"
	"unicode/utf8"

	"github.com/jurat-tls/jurat/xds/resource"
)

// Kind is one of the two variants of the protocol. A client has to choose; the zero value is none.
type Kind uint8

const (
	StateOfTheWorld Kind = 1 + iota // each response of a type has everything (clusters, listeners) or whole resources (others)
	Delta                           // each response says what changed, and what is gone
)

func (k Kind) String() string {
	switch k {
	case StateOfTheWorld:
		return "state of the world"
	case Delta:
		return "delta"
	}
	return "no kind"
}

// Node says who asks (envoy.config.core.v3.Node). A control plane of sense does not believe it without evidence.
type Node struct {
	ID, Cluster            string
	Metadata               map[string]any // what JSON can hold: nil, bool, float64, string, []any and map[string]any
	Region, Zone, SubZone  string
	UserAgent, UserVersion string
	Features               []string // client_features; those of the protocol are added
}

// features are what a client of this package can do that a server may want to know (Envoy's "well known client features").
var features = []string{"xds.config.resource-in-sotw", "xds.config.supports-resource-ttl"}

// valid checks that a node can be sent.
func (n *Node) valid() error {
	for _, s := range append([]string{n.ID, n.Cluster, n.Region, n.Zone, n.SubZone, n.UserAgent, n.UserVersion}, n.Features...) {
		if !utf8.ValidString(s) {
			return fmt.Errorf("the node has the text %q, which is not UTF-8", s)
		}
	}
	return validJSON(n.Metadata, 32)
}

func validJSON(v any, depth int) error {
	if depth == 0 {
		return errors.New("the metadata of the node are nested too deeply")
	}
	switch v := v.(type) {
	case nil, bool, float64:
	case string:
		if !utf8.ValidString(v) {
			return fmt.Errorf("the metadata of the node have the text %q, which is not UTF-8", v)
		}
	case []any:
		for _, e := range v {
			if err := validJSON(e, depth-1); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, e := range v {
			if !utf8.ValidString(k) {
				return fmt.Errorf("the metadata of the node have the key %q, which is not UTF-8", k)
			}
			if err := validJSON(e, depth-1); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("the metadata of the node have a %T, which JSON does not know", v)
	}
	return nil
}

// Counts are what a proxy tells of its connections, as "jurat" in the metadata of its node.
type Counts struct {
	Open    uint64 // now
	Refused uint64 // since the start
}

// metadata is that of a node with c in it.
func (c *Counts) metadata(others map[string]any) map[string]any {
	if c == nil {
		return others
	}
	all := maps.Clone(others)
	if all == nil {
		all = map[string]any{}
	}
	all["jurat"] = map[string]any{"open": float64(c.Open), "refused": float64(c.Refused)}
	return all
}

// Counting is what a control plane calls itself that takes Counts on a stream that is open. Others are told once, with the first request of
// a stream, where metadata are for anything: what a request without news means to them nobody knows.
const Counting = "jurat"

// Request is a DiscoveryRequest or a DeltaDiscoveryRequest.
type Request struct {
	Node  *Node // with the first request of a stream, and where counts have changed
	Type  string
	Nonce string   // of the response that is acknowledged or refused; "" otherwise, and before the first
	Error *Refusal // non-nil refuses that response

	Version string   // state of the world: the version that was accepted last
	Names   []string // state of the world: everything that is subscribed to

	Subscribe, Unsubscribe []string          // delta
	Initial                map[string]string // delta, first request of a type on a stream: versions by name
}

// Refusal is why a response is refused (google.rpc.Status).
type Refusal struct {
	Code    int // of gRPC
	Message string
}

// Response is a DiscoveryResponse or a DeltaDiscoveryResponse.
type Response struct {
	Type, Version, Nonce string
	ControlPlane         string // what the server calls itself
	Items                []Item
	Removed              []string // delta
	Errors               []ItemError
	// Malformed says what is wrong with a response of which no more than type, version and nonce can be read. It is refused.
	Malformed string
}

// Item is one resource of a response (envoy.service.discovery.v3.Resource, or a bare Any).
type Item struct {
	Name    string // "" in a bare Any
	Version string
	Aliases []string
	HasBody bool          // else the item only renews a time to live
	Type    string        // of the body
	Body    []byte        // not shared with the buffer that it was read from
	TTL     time.Duration // 0 is none
}

// ItemError is what a server says of a resource that it cannot give (envoy.service.discovery.v3.ResourceError).
type ItemError struct {
	Name    string
	Code    int // of gRPC
	Message string
}

// Codes of gRPC that mean something here.
const (
	codeInvalidArgument = 3
	codeNotFound        = 5
)

// Update is what changed, to be judged as a whole.
type Update struct {
	Type    string
	Version string // of the response; for people, in the delta protocol
	Changed []resource.Resource
	Removed []string // names that were there, or were asked for, and do not exist
	Failed  []ItemError
	// Complete says that with this update nothing of this type that is subscribed to is unanswered any more.
	Complete bool
	// Why there is an update. The last three come of no response: there is nobody to refuse them to.
	Cause Cause
}

// Cause is where an Update comes from.
type Cause uint8

const (
	Answered Cause = iota // a response of the control plane
	Restored              // what was kept from an earlier run
	Again                 // a name that is subscribed to anew and never ceased to be sent
	Expired               // a time to live is over; it is too late to refuse that
)

func (c Cause) String() string {
	return [...]string{"answered", "restored", "again", "expired"}[c&3]
}

// Rejection is the error of a Sink that refuses an update and says which resources are why. What is not listed is refused with
// them unless OthersTaken is set. Clusters and listeners in the state-of-the-world protocol are always refused together: one version
// stands for all of them. Of other types a server may not send again what came with a resource that was refused, since it
// has been sent, so that a Sink that can do without the one had better take the others.
type Rejection struct {
	Resources   map[string]string // reasons by name; never secrets, since they go to the control plane and into logs
	Reason      string            // what is not about one resource; may be empty
	OthersTaken bool
}
