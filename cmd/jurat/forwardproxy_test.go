package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy"
)

// What decides who is let in, and to where, is measured.
func TestForwardProxyIsMeasured(t *testing.T) {
	seen := map[[32]byte]int{}
	for i, f := range []*forwardProxy{
		nil,
		{},
		{Address: "127.0.0.1:1"},
		{Allow: []string{"a"}},
		{Allow: []string{"a", "b"}},
		{Allow: []string{"*"}},
		{Policy: "sha256:1"},
		{Reattest: time.Minute},
		{Guarded: true},
	} {
		digest, err := (&serveConfig{Forward: f}).digest()
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := seen[digest]; taken {
			t.Errorf("%d is measured like %d", i, other)
		}
		seen[digest] = i
	}
}

// A client that may go anywhere can't make the proxy keep a place for everywhere.
func TestDialersAreBounded(t *testing.T) {
	made := map[string]int{}
	d := dialers{make: func(target string) proxy.Dial {
		made[target]++
		return func(context.Context) (proxy.Conn, error) { return nil, fmt.Errorf("to %s", target) }
	}}
	for i := range 3 * maxDialers {
		for range 2 {
			target := fmt.Sprint(i)
			if _, err := d.get(target)(t.Context()); err == nil || err.Error() != "to "+target {
				t.Fatalf("%s: %v", target, err)
			}
		}
		if made[fmt.Sprint(i)] != 1 || len(d.all) > maxDialers {
			t.Fatalf("%d made for %d, %d kept", made[fmt.Sprint(i)], i, len(d.all))
		}
	}
}
