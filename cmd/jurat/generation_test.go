package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

// denied is an open connection that is refused as soon as it is judged again.
type denied struct {
	result *attest.Result
	times  int
}

func (j *denied) Result() *attest.Result            { return j.result }
func (*denied) Settle(_, _ *attest.Result) bool     { return true }
func (j *denied) Refuse(*attest.Result)             { j.times++ }
func (*denied) Evidence() (*attest.Evidence, error) { return nil, nil }

// A configuration may bring back what the one before it had taken away, with another policy, while connections from then are still
// being drained: the new policy is for them too.
func TestPlaceComesBack(t *testing.T) {
	const with, without = `
listen: [{name: in, address: ":1", require: p.yaml, to: "127.0.0.1:2"}, {name: other, address: ":3", require: q.yaml, to: "127.0.0.1:2"}]
`, `
listen: [{name: other, address: ":3", require: q.yaml, to: "127.0.0.1:2"}]
`
	for name, text := range map[string]string{"the same policy anew": with, "another policy": strings.Replace(with, "p.yaml", "q.yaml", 1)} {
		e := enforce.New((&appraisers{endorser: new(endorsers)}).of, time.Now, nil)
		var last *generation
		begin := func(text string) {
			t.Helper()
			c, err := load(t, text)
			if err != nil {
				t.Fatal(err)
			}
			g := &generation{serveConfig: c, app: testApp(), shared: &shared{enforcer: e}, log: slog.New(slog.DiscardHandler), replaced: last}
			g.announce()
			g.Commit()
			g.enforce(t.Context())
			g.replaced, last = nil, g
		}
		begin(with)
		place := e.Place(atListener(&last.Proxy.Listeners[0]))
		conn := &denied{result: attest.RefusedResult(&attest.Error{Code: attest.CodePlatformDenied, Check: "policy"}, time.Time{})}
		standing, refused := place.Admit(t.Context(), place.Epoch(), "client", conn)
		if refused != nil {
			t.Fatal(refused.Err())
		}
		begin(without)
		if conn.times != 0 {
			t.Errorf("%s: judged when its place goes", name)
		}
		begin(text)
		if conn.times != 1 {
			t.Errorf("%s: judged %d times when it comes back", name, conn.times)
		}
		standing.Done()
	}
}
