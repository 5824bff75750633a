package inspect

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Bootstrap is what a proxy has of its own file about its control plane.
type Bootstrap struct {
	Node   Node
	Server string // HOST:PORT of the control plane; "" where there is none
	Delta  bool   // the variant of the protocol
	Admin  string // address of the admin API
	Port   int    // 0 of a unix socket, whose path Admin is
	Since  time.Time
}

const adminTypes = "type.googleapis.com/envoy.admin.v3."

// section is one of the messages of a ConfigDump.
type section struct {
	Type    string `json:"@type"`
	Version string `json:"version_info,omitempty"`

	DynamicListeners       []any `json:"dynamic_listeners,omitempty"`
	DynamicActiveClusters  []any `json:"dynamic_active_clusters,omitempty"`
	DynamicWarmingClusters []any `json:"dynamic_warming_clusters,omitempty"`
	DynamicRoutes          []any `json:"dynamic_route_configs,omitempty"`
	DynamicActiveSecrets   []any `json:"dynamic_active_secrets,omitempty"`
	DynamicWarmingSecrets  []any `json:"dynamic_warming_secrets,omitempty"`
	DynamicEndpoints       []any `json:"dynamic_endpoint_configs,omitempty"`
}

// entry is a resource of any type; of the fields that hold it one is there.
type entry struct {
	Name      string          `json:"name,omitempty"`
	Version   string          `json:"version_info,omitempty"`
	Cluster   json.RawMessage `json:"cluster,omitempty"`
	Route     json.RawMessage `json:"route_config,omitempty"`
	Endpoints json.RawMessage `json:"endpoint_config,omitempty"`
	Secret    json.RawMessage `json:"secret,omitempty"`
	Updated   string          `json:"last_updated,omitempty"`
	Active    *state          `json:"active_state,omitempty"`
	Warming   *state          `json:"warming_state,omitempty"`
	Error     *failure        `json:"error_state,omitempty"`
	Status    string          `json:"client_status,omitempty"`
}

// state is a DynamicListenerState.
type state struct {
	Version  string          `json:"version_info,omitempty"`
	Listener json.RawMessage `json:"listener,omitempty"`
	Updated  string          `json:"last_updated,omitempty"`
}

// failure is an UpdateFailureState. What was refused is not kept.
type failure struct {
	Attempt string `json:"last_update_attempt,omitempty"`
	Details string `json:"details,omitempty"`
	Version string `json:"version_info,omitempty"`
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func (r *Resource) failure() *failure {
	if r.Refusal == nil {
		return nil
	}
	return &failure{timestamp(r.Refusal.Time), r.Refusal.Reason, r.Refusal.Version}
}

// waits reports whether something newer than what runs was accepted, or nothing that runs.
func (r *Resource) waits() bool {
	return r.Running == nil || len(r.Body) > 0 && (r.Running.Version != r.Version || !bytes.Equal(r.Running.Body, r.Body))
}

// Dump answers the configs of a ConfigDump (envoy.admin.v3), each as JSON with its "@type": the bootstrap, clusters, listeners, routes, secrets,
// and endpoints where they are asked for. versions are those of the state of the world, by type.
func Dump(b *Bootstrap, all []Resource, versions map[string]string, endpoints bool) ([]json.RawMessage, error) {
	clusters, listeners := &section{Type: "ClustersConfigDump", Version: versions[resource.Cluster]}, &section{Type: "ListenersConfigDump", Version: versions[resource.Listener]}
	routes, secrets, addresses := &section{Type: "RoutesConfigDump"}, &section{Type: "SecretsConfigDump"}, &section{Type: "EndpointsConfigDump"}
	screen := envoy.NewScreen()
	for i := range all {
		r := &all[i]
		switch r.Type {
		case resource.Listener:
			listeners.DynamicListeners = append(listeners.DynamicListeners, r.listener(screen))
		case resource.Cluster:
			r.both(screen, &clusters.DynamicActiveClusters, &clusters.DynamicWarmingClusters, func(e *entry, raw json.RawMessage) { e.Cluster = raw })
		case resource.Secret:
			r.both(screen, &secrets.DynamicActiveSecrets, &secrets.DynamicWarmingSecrets, func(e *entry, raw json.RawMessage) { e.Name, e.Secret = r.Name, raw })
		case resource.Route:
			r.one(screen, &routes.DynamicRoutes, func(e *entry, raw json.RawMessage) { e.Route = raw })
		case resource.Endpoints:
			if endpoints {
				r.one(screen, &addresses.DynamicEndpoints, func(e *entry, raw json.RawMessage) { e.Endpoints = raw })
			}
		}
	}
	sections := []*section{clusters, listeners, routes, secrets}
	if endpoints {
		sections = append(sections, addresses)
	}
	boot, err := b.dump()
	if err != nil {
		return nil, err
	}
	configs := []json.RawMessage{boot}
	for _, s := range sections {
		s.Type = adminTypes + s.Type
		raw, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		configs = append(configs, raw)
	}
	return configs, nil
}

// listener is a DynamicListener.
func (r *Resource) listener(screen *envoy.Screen) any {
	e := &entry{Name: r.Name, Error: r.failure(), Status: conditions[r.Condition]}
	if r.Running != nil {
		e.Active = &state{Version: r.Running.Version, Listener: text(screen, *r.Running)}
	}
	switch accepted := len(r.Body) > 0; {
	case accepted && r.waits():
		e.Warming = &state{r.Version, text(screen, r.Resource), timestamp(r.Since)}
	case accepted:
		e.Active.Updated = timestamp(r.Since)
	}
	return e
}

// both puts what runs among what is active, and what waits among what warms.
func (r *Resource) both(screen *envoy.Screen, active, warming *[]any, put func(*entry, json.RawMessage)) {
	if r.Running != nil {
		e := &entry{Version: r.Running.Version}
		if put(e, text(screen, *r.Running)); !r.waits() {
			e.Updated, e.Error, e.Status = timestamp(r.Since), r.failure(), conditions[r.Condition]
		}
		*active = append(*active, e)
	}
	if r.waits() {
		e := &entry{Version: r.Version, Updated: timestamp(r.Since), Error: r.failure(), Status: conditions[r.Condition]}
		put(e, text(screen, r.content()))
		*warming = append(*warming, e)
	}
}

// one puts what runs, or what was accepted where nothing does.
func (r *Resource) one(screen *envoy.Screen, all *[]any, put func(*entry, json.RawMessage)) {
	e := &entry{Version: r.Version, Updated: timestamp(r.Since), Error: r.failure(), Status: conditions[r.Condition]}
	shown := r.content()
	if r.Running != nil {
		if shown = *r.Running; r.waits() {
			e.Version, e.Updated = shown.Version, ""
		}
	}
	put(e, text(screen, shown))
	*all = append(*all, e)
}

// text is a resource in JSON, without secrets.
func text(screen *envoy.Screen, r resource.Resource) json.RawMessage {
	raw, err := screen.JSON(r)
	if err != nil { // nothing that was accepted is like that; what the error says may be of what is in it
		return json.RawMessage(`{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "not to be read"}`)
	}
	return raw
}

// dump is a BootstrapConfigDump, of what has a meaning here.
func (b *Bootstrap) dump() (json.RawMessage, error) {
	metadata, err := b.Node.shown()
	if err != nil {
		return nil, err
	}
	node := map[string]any{"id": b.Node.ID, "cluster": b.Node.Cluster, "user_agent_name": b.Node.Agent, "user_agent_version": b.Node.Version}
	if len(metadata) > 0 {
		node["metadata"] = metadata
	}
	bootstrap := map[string]any{"node": node}
	switch {
	case b.Admin == "":
	case b.Port == 0:
		bootstrap["admin"] = map[string]any{"address": map[string]any{"pipe": map[string]any{"path": b.Admin}}}
	default:
		bootstrap["admin"] = map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": b.Admin, "port_value": b.Port}}}
	}
	if b.Server != "" {
		api, ads := "GRPC", map[string]any{"ads": map[string]any{}, "resource_api_version": "V3"}
		if b.Delta {
			api = "DELTA_GRPC"
		}
		bootstrap["dynamic_resources"] = map[string]any{
			"lds_config": ads, "cds_config": ads,
			"ads_config": map[string]any{
				"api_type": api, "transport_api_version": "V3",
				"grpc_services": []any{map[string]any{"google_grpc": map[string]any{"target_uri": b.Server, "stat_prefix": "control_plane"}}},
			},
		}
	}
	out := map[string]any{"@type": adminTypes + "BootstrapConfigDump", "bootstrap": bootstrap}
	if !b.Since.IsZero() {
		out["last_updated"] = timestamp(b.Since)
	}
	return json.Marshal(out)
}
