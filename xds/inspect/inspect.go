package inspect

import (
	"encoding/json"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/proxy/redact"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Condition is how a resource is with the proxy that asked for it (envoy.admin.v3.ClientResourceStatus).
type Condition uint8

// Values of Condition.
const (
	Unknown       Condition = iota // to who answers: a control plane does not see it
	Requested                      // and not answered
	DoesNotExist                   // says the control plane
	Accepted                       // ACKED
	Refused                        // NACKED: what came last is not taken
	ReceivedError                  // the control plane can't give it
	TimedOut                       // not answered, and the time for it is over
)

var conditions = [...]string{"UNKNOWN", "REQUESTED", "DOES_NOT_EXIST", "ACKED", "NACKED", "RECEIVED_ERROR", "TIMEOUT"}

// Standing is how a control plane sees that a proxy stands to a resource (envoy.service.status.v3.ConfigStatus).
type Standing uint8

// Values of Standing.
const (
	NotSaid  Standing = iota // by whoever is no control plane
	Synced                   // the proxy has accepted it
	NotSent                  // it was not told yet
	Stale                    // it was sent, and not answered
	Rejected                 // ERROR: the proxy has refused it
)

// Resource is one resource as a proxy has it.
type Resource struct {
	resource.Resource           // as it was accepted last; without a Body where nothing was, or where it is not to be shown
	Condition         Condition // to a proxy
	Standing          Standing  // to a control plane
	Since             time.Time // that it is as it is; zero where nobody knows
	Refusal           *Refusal  // of what came last; nil where that was accepted
	Running           *resource.Resource
}

// Refusal is why a resource is not taken, or not to be had.
type Refusal struct {
	Version string
	Reason  string
	Time    time.Time
}

// Node is what a proxy calls itself.
type Node struct {
	ID, Cluster, Agent, Version string
	Metadata                    map[string]any // what JSON can hold
}

// shown is the metadata without what is named like a secret.
func (n *Node) shown() (map[string]any, error) {
	if len(n.Metadata) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(n.Metadata)
	if err != nil {
		return nil, err
	}
	var plain map[string]any
	err = json.Unmarshal(raw, &plain)
	redact.Value(plain)
	return plain, err
}

// Client is a proxy with what it has asked for, by type and name.
type Client struct {
	Node      Node
	Scope     string // which of the streams of a node that has many; "" for the only one
	Resources []Resource
}

// content is what is shown of a resource: what was accepted, or no more than its name.
func (r *Resource) content() resource.Resource { return named(r.Resource) }

func named(r resource.Resource) resource.Resource {
	if len(r.Body) == 0 { // every type has its name in field 1
		r.Body = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), r.Name)
	}
	return r
}
