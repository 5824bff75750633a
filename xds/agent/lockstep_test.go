package agent_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/guard"
	"github.com/jurat-tls/jurat/xds/resource"
)

// force is what holds at a proxy.
func (b *bench) force() string {
	text := fmt.Sprintln(b.shape(), b.proxy.config.Listeners[0].Address)
	var names []string
	for name := range b.proxy.policies {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p := b.proxy.policies[name]
		text += fmt.Sprint(name, p.Name, p.Pushed)
		for _, l := range p.Layers {
			text += " " + l.ID()
		}
		text += "\n"
	}
	return text
}

// Whatever comes in whatever order, an update of policies alone has the outcome that it has beside a cluster which is what it was, with which
// all is looked at: what is refused, what holds, and what is asked for.
func TestPolicyAloneInLockstep(t *testing.T) {
	limits := []string{limitsText, strings.Replace(limitsText, "mesh*", "mes*", 1), strings.Replace(limitsText, "mesh*", "other", 1), strings.Replace(limitsText, "10.0.0.0/8:8443", "10.0.0.0/8", 1)}
	floors := []*policy.Policy{parsePolicy(t, floorText), parsePolicy(t, strings.Replace(floorText, "milan+", "genoa+", 1)), parsePolicy(t, strings.Replace(floorText, "evidence: 2h", "evidence: 10m", 1))}
	texts := []string{pushedText, denying("turin"), denying("genoa"), strings.Replace(pushedText, "evidence: 1h", "evidence: 40m", 1), strings.Replace(pushedText, "evidence: 1h", "evidence: 9h", 1), "policy: mesh\n", pushedText + "floor: below.yaml\n"}
	short, long := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		fast, slow := running(t, agent.Options{}), running(t, agent.Options{})
		both := []*bench{fast, slow}
		pay := clusterText("pay", "pay", "mesh")
		if rapid.Bool().Draw(rt, "reattest") {
			pay = strings.Replace(pay, "EVIDENCE_ONLY", "EVIDENCE_ONLY, reattest: 1500s", 1)
		}
		for _, b := range both {
			b.ok(pay)
		}
		same := load(t, "1", pay)
		raw := func(serial uint64, text string) resource.Resource {
			body, err := api.References{Name: "values", Serial: serial, Files: map[string][]byte{"below.yaml": []byte(text)}}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return resource.Resource{Type: resource.ReferenceValues, Name: "values", Version: "1", Body: body}
		}
		push := func(changed ...resource.Resource) (results [2]error) {
			cause := rapid.SampledFrom([]protocol.Cause{protocol.Answered, protocol.Answered, protocol.Restored}).Draw(rt, "cause")
			before := fast.proxy.config
			for i, more := range [][]resource.Resource{nil, same} {
				results[i] = both[i].Offer(&client.Update{Type: changed[0].Type, Version: "1", Changed: slices.Concat(changed, more), Cause: cause})
			}
			if results[0] == nil && fast.proxy.config == before {
				short++
			} else {
				long++
			}
			return results
		}
		serial := 5
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			var results [2]error
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0, 1, 2, 3:
				serial += rapid.IntRange(-1, 2).Draw(rt, "serial")
				text := policyText("mesh", max(serial, 1), rapid.SampledFrom(texts).Draw(rt, "text"))
				if rapid.Bool().Draw(rt, "refers") {
					text += "reference_values: [values]\n"
				}
				results = push(load(t, "1", text)...)
			case 4:
				results = push(raw(uint64(max(serial, 1)), rapid.SampledFrom([]string{floorText, strings.Replace(floorText, "milan+", "genoa+", 1), "nonsense: ["}).Draw(rt, "values")))
			case 5:
				results = push(load(t, "1", endpointsText("pay", rapid.SampledFrom([]string{"10.0.0.1:8443", "10.0.0.2:8443", "10.0.0.2:9443"}).Draw(rt, "endpoint")))...)
			case 6:
				l, f, fail := rapid.SampledFrom(limits).Draw(rt, "limits"), rapid.SampledFrom(floors).Draw(rt, "floor"), rapid.IntRange(0, 3).Draw(rt, "fails") == 0
				port := rapid.SampledFrom([]string{"9000", "9001"}).Draw(rt, "port")
				for i, b := range both {
					static := decode[config.Config](t, strings.Replace(staticText, "9000", port, 1))
					results[i] = b.Replace(decode[guard.Limits](t, l), f, &static, map[string]*policy.Policy{"ledger.yaml": floors[0]}, func(c *config.Config, policies map[string]guard.Policy) error {
						if fail {
							return errors.New("no")
						}
						b.proxy.config, b.proxy.policies = c, policies
						return nil
					})
				}
			case 7:
				away := rapid.SampledFrom([]time.Duration{0, time.Minute, 48 * time.Hour}).Draw(rt, "away")
				for i, b := range both {
					results[i] = b.Away(away)
				}
			case 8:
				for _, b := range both {
					b.Missing(resource.ReferenceValues, []string{"values"})
				}
			default:
				for _, b := range both {
					if b.proxy.fail = nil; rapid.IntRange(0, 3).Draw(rt, "broken") == 0 {
						b.proxy.fail = &attest.Error{Code: attest.CodeInternal}
					}
				}
				slow.proxy.fail = fast.proxy.fail
			}
			if (results[0] == nil) != (results[1] == nil) {
				rt.Fatalf("alone: %v\nbeside a cluster: %v", results[0], results[1])
			}
			if a, b := fast.force(), slow.force(); a != b || !reflect.DeepEqual(fast.asked.names, slow.asked.names) {
				rt.Fatalf("alone:\n%s %v\nbeside a cluster:\n%s %v", a, fast.asked.names, b, slow.asked.names)
			}
		}
	})
	if short == 0 || long == 0 {
		t.Errorf("%d, %d", short, long)
	}
}
