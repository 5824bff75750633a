package accesslog_test

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/accesslog"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hardware verifies evidence that is the report data itself.
type hardware struct{ claims attest.Claims }

func (h hardware) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	c := h.claims
	c.ReportData = attest.ReportData(ev.Raw)
	return &c, nil
}

type policy struct{ code attest.Code }

func (p policy) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	c := attest.Check{ID: "test", Status: attest.StatusPass}
	if p.code != "" {
		c.Status, c.Code = attest.StatusFail, p.code
	}
	return attest.Judgement{ID: "sha256:feed", Checks: []attest.Check{c}}
}

var start = time.Date(2026, 11, 29, 4, 40, 58, 123456789, time.UTC)

func appraise(claims attest.Claims, level attest.Level, made time.Time, code attest.Code) *attest.Result {
	data := attest.ReportData{1}
	ev := &attest.Evidence{Format: "test", Raw: data[:]}
	a := attest.NewAppraiser(attest.NoEndorser{}, hardware{claims})
	return a.Appraise(context.Background(), ev, attest.Expect(data, level, made), policy{code}, start)
}

func affirmed() *attest.Result {
	return appraise(attest.Claims{Vendor: "amd", TEE: "snp", Generation: "genoa"}, attest.LevelSession, start.Add(-90*time.Second), "")
}

func full() *accesslog.Record {
	return &accesslog.Record{
		Start: start, Duration: 12345678 * time.Nanosecond, FirstByte: 3210 * time.Microsecond,
		Listener: "public", Client: "192.0.2.7:51234", SNI: "shop.example", ALPN: "h2", Protocol: "HTTP/2",
		Method: "POST", Authority: "shop.example", Path: "/orders/7?token=s3cret", Status: 502, Code: attest.CodeBackendFailed,
		Flags: accesslog.UpstreamConnectionTermination | accesslog.UpstreamRetryLimitExceeded, Received: 312, Sent: 5120,
		VirtualHost: "shop", Route: "orders", Cluster: "orders", Endpoint: "10.0.0.1:443", Tries: 3,
		TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Downstream: affirmed(),
		Upstream: appraise(attest.Claims{Vendor: "sim", TEE: "tdx", Generation: "q", Simulated: true}, attest.LevelKey, time.Time{}, attest.CodeMeasurement),
	}
}

type namedRecord struct {
	name   string
	record *accesslog.Record
}

func records() []namedRecord {
	session := affirmed()
	return []namedRecord{
		{"whole", full()},
		{"plain", &accesslog.Record{
			Start: start, Duration: time.Millisecond, FirstByte: time.Microsecond, Listener: "public", Client: "[2001:db8::7]:51234", Protocol: "HTTP/1.1",
			Method: "GET", Authority: "shop.example:8443", Path: "/", Status: 200, Sent: 11, Cluster: "web", Endpoint: "unix:/run/web.sock", Tries: 1,
		}},
		{"raw", &accesslog.Record{
			Start: start, Duration: 3*time.Hour + 25*time.Millisecond, FirstByte: 2 * time.Second, Listener: "db", Client: "192.0.2.7:51234", Protocol: "TCP",
			Received: 1 << 40, Sent: 1<<64 - 1, Cluster: "db", Endpoint: "10.0.0.3:5432", Tries: 1,
			Downstream: session.Reconnect(policy{}, start.Add(time.Minute)),
		}},
		{"no evidence", &accesslog.Record{
			Start: start, Duration: time.Millisecond, Listener: "public", Client: "192.0.2.7:51234", Protocol: "TCP", Code: attest.CodeNoEvidence,
			Downstream: attest.RefusedResult(&attest.Error{Code: attest.CodeNoEvidence, Check: "transport"}, start),
		}},
		{"hostile", &accesslog.Record{
			Start: start, Duration: -time.Second, Client: "192.0.2.7:51234", Listener: "a b", Protocol: "HTTP/1.1", Method: "GET",
			SNI: "x\" 200 0\n192.0.2.9 - -", ALPN: "\x1b[2J\u202e\u009b", Authority: "user:s3cret@x\xff\U0001f600", Path: `/a b"\` + "\r\n\x7f#s3cret", Status: 400,
			TraceID: "s3cret\n", Flags: accesslog.DownstreamProtocolError,
		}},
		{"zero", &accesslog.Record{}},
	}
}

// golden compares got with a file.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got) {
		t.Errorf("%s: got\n%s", file, got)
	}
}
