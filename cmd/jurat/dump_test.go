package main

import (
	"encoding/base64"
	"encoding/hex"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
)

// strictly reads a file as a ConfigDump of Envoy's, in which nothing may be that such a reader does not know, and writes to standard output what
// types it has: strictly FILE [SECRET...]. None of the secrets may be in it, in any encoding.
func strictly(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: strictly FILE [SECRET...]")
	}
	raw := ts.ReadFile(args[0])
	d := new(adminv3.ConfigDump)
	if err := protojson.Unmarshal([]byte(raw), d); err != nil {
		ts.Fatalf("%s is no ConfigDump: %v", args[0], err)
	}
	inside := raw
	for _, a := range d.GetConfigs() {
		m, err := a.UnmarshalNew()
		if err != nil {
			ts.Fatalf("%s: %v", a.GetTypeUrl(), err)
		}
		inside += prototext.Format(m) + string(a.GetValue())
		_, _ = ts.Stdout().Write([]byte(a.GetTypeUrl() + "\n"))
	}
	for _, secret := range args[1:] {
		for cut := range 3 { // of base64, whatever stands before it
			text := base64.RawStdEncoding.EncodeToString([]byte(secret[cut:]))
			for _, trace := range []string{secret, hex.EncodeToString([]byte(secret)), text[:len(text)-2], strings.NewReplacer("+", "-", "/", "_").Replace(text[:len(text)-2])} {
				if strings.Contains(inside, trace) {
					ts.Fatalf("%s has %q, which is %q", args[0], trace, secret)
				}
			}
		}
	}
}
