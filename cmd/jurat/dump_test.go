package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
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

// csds asks for the status of all clients, once and on a stream: csds ADDR. It writes a line for each resource.
func csds(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: csds ADDR")
	}
	addr := args[0]
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		addr = "unix:" + ts.MkAbs(path)
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client := statusv3.NewClientStatusDiscoveryServiceClient(conn)
	stream, err := client.StreamClientStatus(ctx)
	ts.Check(err)
	ts.Check(stream.Send(&statusv3.ClientStatusRequest{ExcludeResourceContents: true}))
	_, err = stream.Recv()
	ts.Check(err)
	got, err := client.FetchClientStatus(ctx, &statusv3.ClientStatusRequest{})
	ts.Check(err)
	var out strings.Builder
	for _, c := range got.GetConfig() {
		fmt.Fprintf(&out, "node %s of %s\n", c.GetNode().GetId(), c.GetNode().GetCluster())
		for _, x := range c.GetGenericXdsConfigs() {
			fmt.Fprintf(&out, "%s %s client %s config %s %s\n", x.GetTypeUrl()[strings.LastIndexByte(x.GetTypeUrl(), '.')+1:], x.GetName(), x.GetClientStatus(), x.GetConfigStatus(), x.GetErrorState().GetDetails())
			if x.GetXdsConfig() != nil {
				m, err := x.GetXdsConfig().UnmarshalNew()
				ts.Check(err)
				fmt.Fprintln(&out, strings.ReplaceAll(prototext.MarshalOptions{}.Format(m), "\n", " "))
			}
		}
	}
	_, err = ts.Stdout().Write([]byte(out.String()))
	ts.Check(err)
}
