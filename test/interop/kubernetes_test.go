package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// kubernetes serves the API of a cluster in which there is nothing and nothing ever happens, which is enough for a control plane that
// reads its configuration from files but does not run without a cluster. What is written is answered as if it were there
// now, and forgotten. It answers where a kubeconfig is.
func kubernetes(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(emptyCluster))
	_ = s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections() // watches never end by themselves
		s.Close()
	})
	file := filepath.Join(t.TempDir(), "kubeconfig")
	replace(t, file, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: nothing, cluster: {server: %s}}]
users: [{name: somebody, user: {token: none}}]
contexts: [{name: nothing, context: {cluster: nothing, user: somebody}}]
current-context: nothing
`, s.URL))
	return file
}

// lists is what a list of a collection calls itself. Of others it is "List", which clients that do not look take for theirs.
var lists = map[string]string{
	"configmaps": "ConfigMapList", "endpointslices": "EndpointSliceList", "namespaces": "NamespaceList", "nodes": "NodeList",
	"pods": "PodList", "secrets": "SecretList", "services": "ServiceList",
}

func emptyCluster(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch r.URL.Path {
	case "/version":
		answer(w, 200, map[string]any{"major": "1", "minor": "37", "gitVersion": "v1.37.2"})
		return
	case "/api":
		answer(w, 200, map[string]any{"kind": "APIVersions", "versions": []string{"v1"}})
		return
	case "/apis":
		answer(w, 200, map[string]any{"kind": "APIGroupList", "apiVersion": "v1", "groups": []string{}})
		return
	}
	group := 2 // parts of it: api/v1, or apis/GROUP/VERSION
	if parts[0] == "apis" {
		group = 3
	}
	if len(parts) < group {
		refuse(w, 404, "NotFound")
		return
	}
	version, rest := strings.Join(parts[1:group], "/"), parts[group:]
	if len(rest) > 2 && rest[0] == "namespaces" {
		rest = rest[2:]
	}
	query := r.URL.Query()
	switch {
	case len(rest) == 0:
		answer(w, 200, map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": []string{}})
	case r.Method != http.MethodGet:
		body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
		if err != nil || !json.Valid(body) { // such as protobuf, in place of which a client then takes JSON
			refuse(w, 415, "UnsupportedMediaType")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	case query.Get("sendInitialEvents") != "": // lists are asked for as lists
		refuse(w, 422, "Invalid")
	case query.Get("watch") != "":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case len(rest) > 1:
		refuse(w, 404, "NotFound")
	default:
		kind := lists[rest[0]]
		switch {
		case strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadata"):
			kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
		case kind == "":
			kind, version = "List", "v1"
		}
		answer(w, 200, map[string]any{"kind": kind, "apiVersion": version, "metadata": map[string]any{"resourceVersion": "1"}, "items": []string{}})
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, reason string) {
	answer(w, status, map[string]any{"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "reason": reason, "message": reason, "code": status})
}
