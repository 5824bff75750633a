package cca_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/attest/tsm"
)

// source stands for configfs-tsm.
type source func(attest.ReportData) ([]byte, error)

func (source) Name() string { return "test" }
func (source) Probe() error { return nil }

func (s source) Collect(_ context.Context, data attest.ReportData) (tsm.Report, error) {
	raw, err := s(data)
	return tsm.Report{Out: raw}, err
}

func TestCollect(t *testing.T) {
	t.Parallel()
	over := func(data []byte) ([]byte, error) { return realm(10, data).token(t), nil }
	a := cca.NewTestAttester(source(func(data attest.ReportData) ([]byte, error) { return over(data[:]) }))
	ev, err := a.Attest(t.Context(), attest.ReportData{5})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cca.NewVerifier(forge{}.make(t).keys).Verify(t.Context(), ev, nil, epoch)
	if err != nil || c.ReportData != (attest.ReportData{5}) || ev.Format != cca.Format || len(ev.Endorsements) != 0 {
		t.Error(err)
	}
	for name, s := range map[string]source{
		"over other data": func(attest.ReportData) ([]byte, error) { return over(challenge[:]) },
		"garbage":         func(attest.ReportData) ([]byte, error) { return []byte("x"), nil },
		"failure":         func(attest.ReportData) ([]byte, error) { return nil, errors.New("EIO") },
	} {
		if ev, err := cca.NewTestAttester(s).Attest(t.Context(), attest.ReportData{5}); attest.CodeOf(err) != attest.CodeAttesterFailed || ev != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// This machine is no realm.
	if _, err := cca.Probe(); attest.CodeOf(err) != attest.CodeNoTEE {
		t.Error(err)
	}
	if _, err := cca.NewAttester(); attest.CodeOf(err) != attest.CodeNoTEE {
		t.Error(err)
	}
}
