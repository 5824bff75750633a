package agent_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/client"
)

// stuck is a Store on a disk that does nothing until it is told to.
type stuck struct {
	saving chan []byte
	turn   chan error

	mu  sync.Mutex
	raw []byte
}

func newStuck() *stuck { return &stuck{saving: make(chan []byte), turn: make(chan error)} }

func (s *stuck) Load() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raw, nil
}

func (s *stuck) Save(raw []byte) error {
	s.saving <- raw
	err := <-s.turn
	if err == nil {
		s.mu.Lock()
		s.raw = raw
		s.mu.Unlock()
	}
	return err
}

func denying(generation string) string {
	return strings.Replace(pushedText, "platforms: {allow: [amd genoa+]}", "platforms: {allow: [amd genoa+], deny: [amd "+generation+"]}", 1)
}

// send offers without waiting for what is kept.
func (b *bench) send(texts ...string) error {
	b.Helper()
	changed := load(b, "1", texts...)
	return b.Offer(&client.Update{Type: changed[0].Type, Version: "1", Changed: changed})
}

// A denial is in force, and answered, while the disk has not even taken the update before it. What is saved last is all that was
// accepted, and none of it is let in again that is older, in this process or in the next.
func TestDenialDoesNotWaitForTheDisk(t *testing.T) {
	defer goleak.VerifyNone(t)
	disk := newStuck()
	b := newBench(t, limitsText, agent.Options{Store: disk})
	for _, text := range []string{clusterText("pay", "pay", "mesh"), endpointsText("pay", "10.0.0.1:8443"), listenerText("out", "15001", "routes"), routesText("routes", "pay")} {
		if err := b.send(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.send(policyText("mesh", 5, pushedText)); err != nil {
		t.Fatal(err)
	}
	first := <-disk.saving
	for i, generation := range []string{"genoa", "turin"} {
		if err := b.send(policyText("mesh", 6+i, denying(generation))); err != nil {
			t.Fatal(err)
		}
		if got := b.proxy.policies["xds:mesh"].Layers[0]; got.ID() != parsePolicy(t, denying(generation)).ID() {
			t.Fatalf("%s is not denied", generation)
		}
	}
	if err := b.send(policyText("mesh", 6, denying("genoa"))); err == nil || !strings.Contains(err.Error(), string(attest.CodeRollback)) {
		t.Errorf("what is older, and not saved, is taken: %v", err)
	}
	kept := make(chan struct{})
	go func() { b.Kept(); close(kept) }()
	disk.turn <- nil
	second := <-disk.saving
	select {
	case <-kept:
		t.Error("said to be kept before it is")
	default:
	}
	disk.turn <- errors.New("the disk is full")
	<-kept
	if s := b.Status(); !s.Unkept || string(first) == string(second) {
		t.Errorf("%+v, %s and then %s", s, first, second)
	}
	// What is accepted again is a reason to try again.
	if err := b.send(policyText("mesh", 7, denying("turin"))); err != nil {
		t.Fatal(err)
	}
	third := <-disk.saving
	disk.turn <- nil
	b.Kept()
	if s := b.Status(); s.Unkept || string(third) != string(second) {
		t.Errorf("%+v, %s and then %s", s, second, third)
	}
	next := newBench(t, limitsText, agent.Options{Store: disk})
	if err := next.send(policyText("mesh", 6, denying("genoa"))); err == nil || !strings.Contains(err.Error(), string(attest.CodeRollback)) {
		t.Errorf("what is older is taken by the next process: %v", err)
	}
	// It is as new as what was seen, and changes nothing that would have to be saved.
	if err := next.send(policyText("mesh", 7, denying("turin"))); err != nil {
		t.Error(err)
	}
	next.Kept()
}

// A change of policies alone leaves the configuration what it was, and the target is told by its pointer. It is held against the limits
// and the serials as any other is.
func TestPolicyAlone(t *testing.T) {
	b := running(t, agent.Options{})
	b.ok(strings.Replace(clusterText("pay", "pay", "mesh"), "EVIDENCE_ONLY", "EVIDENCE_ONLY, reattest: 1500s", 1))
	before := b.proxy.config
	b.ok(policyText("mesh", 6, denying("turin")))
	if b.proxy.config != before || b.proxy.policies["xds:mesh"].Layers[0].ID() != parsePolicy(t, denying("turin")).ID() {
		t.Error("another configuration, or the policy of before")
	}
	for _, bad := range []struct{ text, says string }{
		{policyText("mesh", 7, "policy: mesh\n"), string(attest.CodeConfigMissing)},
		{policyText("mesh", 7, strings.Replace(pushedText, "binding", "bindnig", 1)), "bindnig"},
		{policyText("mesh", 5, pushedText), string(attest.CodeRollback)},
		{policyText("mesh", 6, pushedText), string(attest.CodeRollback)}, // something else under the same serial
		// The limits have peers attest anew twice as often as evidence may be old, and the cluster does not.
		{policyText("mesh", 7, strings.Replace(pushedText, "evidence: 1h", "evidence: 40m", 1)), string(attest.CodeLimitPolicy)},
	} {
		if r := b.refused(bad.text); !strings.Contains(fmt.Sprint(r.Resources, r.Reason), bad.says) {
			t.Errorf("%s: got %+v", bad.text, r)
		}
	}
	b.ok(endpointsText("pay", "10.0.0.9:8443"))
	b.want("out>pay pay=10.0.0.9:8443,/xds:mesh")
	now := b.proxy.config
	if now == before {
		t.Error("another configuration has the pointer of the one before")
	}
	b.ok(policyText("mesh", 7, denying("genoa")))
	if b.proxy.config != now {
		t.Error("not what was carried out last")
	}
	b.want("out>pay pay=10.0.0.9:8443,/xds:mesh")
}
