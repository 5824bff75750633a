package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedianAndQuantile(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		in := slices.Clone(c.in)
		if got := median(in); got != c.want || !slices.Equal(in, c.in) {
			t.Errorf("median of %v is %v, leaving %v", c.in, got, in)
		}
	}
	if !math.IsNaN(median(nil)) || !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("nothing has a median")
	}
	var all []time.Duration
	for i := 100; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Microsecond)
	}
	for share, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := quantile(all, share); got != want {
			t.Errorf("quantile %v is %v µs", share, got)
		}
	}
}

func TestParsersOfTools(t *testing.T) {
	for _, c := range []struct {
		parse func(string) (float64, error)
		out   string
		want  float64 // 0 for an error
	}{
		{parseWrk, "Running 1s test\n  27813 requests in 1.10s, 28.94MB read\nRequests/sec:  25288.67\n", 27813},
		{parseWrk, "  10 requests in 1.10s, 28.94MB read\n  Socket errors: connect 0, read 3, write 0, timeout 0\n", 0},
		{parseWrk, "  10 requests in 1.10s, 28.94MB read\n  Non-2xx or 3xx responses: 10\n", 0},
		{parseWrk, "unable to connect", 0},
		{parseH2load, "Application protocol: h2\nrequests: 510 total, 560 started, 510 done, 510 succeeded, 0 failed, 0 errored, 0 timeout\n", 510},
		{parseH2load, "Application protocol: h2\nrequests: 510 total, 560 started, 510 done, 509 succeeded, 1 failed, 0 errored, 0 timeout\n", 0},
		{parseH2load, "Application protocol: h2\nrequests: 510 total, 560 started, 510 done, 509 succeeded, 0 failed, 1 errored, 0 timeout\n", 0},
		{parseH2load, "Application protocol: http/1.1\nrequests: 510 total, 560 started, 510 done, 510 succeeded, 0 failed, 0 errored, 0 timeout\n", 0},
		{parseH2load, "", 0},
	} {
		if got, err := c.parse(c.out); got != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%q: %v, %v", c.out, got, err)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]string{
		"nginx version: nginx/1.22.1\n": "1.22.1",
		"HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nStatus: x": "2.6.12-1+deb12u4",
		"2.6.2\n": "2.6.2",
		"\nenvoy  version: bf8c1f3b4f7a9/1.40.0/Clean/RELEASE/BoringSSL\n":            "1.40.0",
		"wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer":                "4.1.0-3+b2",
		"jurat (devel) go1.26.8 linux/amd64\nsha256 839fa559c0dae8efc568\nbuild  x\n": "sha256 839fa559c0da",
		"unknown": "unknown",
	} {
		if got := parseVersion(out); got != want {
			t.Errorf("%q: %q", out, got)
		}
	}
}

func TestParseProc(t *testing.T) {
	s, err := parseStat("123 (a) S (b) S 1 77 77 0 -1 4194304 1 2 3 4 150 25 6 7 20 0 4 0 100 200 300\n")
	if err != nil || s.group != 77 || s.cpu != 1750*time.Millisecond {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "1 (a) S 1 2", "1 (a) S 1 77 77 0 -1 4194304 1 2 3 4 x 25 6"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	rss, pss, err := parseRollup([]byte("0-1 ---p 0 0:0 0 [rollup]\nRss:  8000 kB\nPss:  5000 kB\nPss_Anon:  1 kB\n"))
	if err != nil || rss != 8000 || pss != 5000 {
		t.Error(rss, pss, err)
	}
	if _, _, err := parseRollup([]byte("Rss:  8000 kB\n")); err == nil {
		t.Error("no Pss is taken")
	}
}

// A process group is seen, with what it uses.
func TestGroup(t *testing.T) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Skip("no /proc here")
	}
	s, err := parseStat(string(own))
	if err != nil {
		t.Fatal(err)
	}
	g := group(s.group)
	if _, ok := g.stats()[os.Getpid()]; !ok {
		t.Error("we are not in our own group")
	}
	if _, _, err := group(1 << 30).memory(); err == nil {
		t.Error("a group without processes has memory")
	}
}

func TestChoose(t *testing.T) {
	all := []string{"a", "b", "c"}
	if got, err := choose("c,a", all); err != nil || !slices.Equal(got, []string{"a", "c"}) {
		t.Error(got, err)
	}
	if got, err := choose("", all); err != nil || !slices.Equal(got, all) {
		t.Error(got, err)
	}
	if _, err := choose("a,d", all); err == nil {
		t.Error("d is taken")
	}
}

// What asks for a certificate by name asks for that of all.
func TestByName(t *testing.T) {
	if got := byName("127.0.0.1:8443"); got != "localhost:8443" {
		t.Error(got)
	}
}

// An earlier build takes part where there is one, and is nobody to be better than.
func TestReportOfAnEarlierBuild(t *testing.T) {
	if slices.Contains(kindNames(), earlier) {
		t.Error("a build that nobody named takes part")
	}
	*before = "jurat"
	defer func() { *before = "" }()
	if !slices.Contains(kindNames(), earlier) {
		t.Error("the build that was named does not take part")
	}
	samples := fill([3]float64{15, 30, 20}, [3]float64{17, 30, 20})
	for n, cpu := range []float64{12, 17} {
		samples.add("h1", earlier, n, sample{"cpu": cpu})
		samples.add(workIdle, earlier, n, sample{"pss": 1})
		samples.add(workIdle, "nginx", n, sample{"pss": 4})
		samples.add(workIdle, product, n, sample{"pss": 2})
	}
	r := &report{Peers: []string{product, earlier, "nginx", "haproxy"}, Samples: samples}
	r.summarise()
	var text bytes.Buffer
	r.write(&text, false)
	if !strings.Contains(text.String(), "0.80 haproxy") || !strings.Contains(text.String(), "1.125") || !strings.Contains(text.String(), "0.50 nginx") {
		t.Error(text.String())
	}
}

// fill makes results of rows of (jurat, nginx, HAProxy), one row for each round; 0 where there is no sample.
func fill(rounds ...[3]float64) results {
	r := results{}
	for n, row := range rounds {
		for i, p := range []string{product, "nginx", "haproxy"} {
			if row[i] > 0 {
				r.add("h1", p, n, sample{"cpu": row[i]})
			}
		}
	}
	return r
}

func TestRatioIsOfTheSameRound(t *testing.T) {
	r := fill([3]float64{10, 20, 30}, [3]float64{100, 0, 300}, [3]float64{30, 40, 90})
	if got := r.best("h1", "cpu", []string{"nginx", "haproxy"}); got != "nginx" {
		t.Errorf("best is %q", got)
	}
	if got := r.ratio("h1", "cpu", product, "nginx"); got != (0.5+0.75)/2 {
		t.Errorf("ratio %v", got)
	}
	if got := r.median("h1", "cpu", "nginx"); got != 30 {
		t.Errorf("median %v", got)
	}
	if got := r.best("h1", "cpu", []string{"envoy"}); got != "" {
		t.Errorf("best of none is %q", got)
	}
}

func TestReport(t *testing.T) {
	samples := fill([3]float64{15, 30, 20}, [3]float64{17, 30, 20})
	for n, ratio := range []float64{1.01, 1.05} {
		samples.add(workH1, product, n, sample{"cpu": 100 * ratio, "plain": 100, "ratio": ratio})
		samples.add(workRate, direct, n, sample{"p99": 1000})
		samples.add(workRate, product, n, sample{"cpu": 9, "p50": 1, "p99": 1500})
		samples.add(workRate, "nginx", n, sample{"cpu": 9, "p50": 1, "p99": 2000})
	}
	r := &report{Command: "bin/benchproxy", Peers: []string{product, "nginx", "haproxy"}, Samples: samples, Notes: []string{"noted"}}
	r.summarise()
	h1 := r.Lines[0]
	if h1.Ratio == nil || *h1.Ratio != 0.8 || h1.Beside != "haproxy" || !h1.Missed {
		t.Errorf("%+v", h1)
	}
	p99 := r.Lines[len(r.Lines)-1]
	if p99.Values[product] != 500 || *p99.Ratio != 0.75 || p99.Missed {
		t.Errorf("%+v", p99)
	}
	if len(r.Attested) != 1 || math.Abs(*r.Attested[0].Ratio-1.03) > 1e-9 || r.missed() != 2 {
		t.Errorf("%+v, %d missed", r.Attested, r.missed())
	}
	var text, markdown, raw bytes.Buffer
	r.write(&text, false)
	r.write(&markdown, true)
	if err := r.json(&raw); err != nil || !json.Valid(raw.Bytes()) {
		t.Error(err)
	}
	for _, want := range []string{"0.80 haproxy", "≤ 0.75", "MISSED", "1.03", "noted"} {
		if !strings.Contains(text.String(), want) || !strings.Contains(markdown.String(), want) {
			t.Errorf("no %q in\n%s%s", want, text.String(), markdown.String())
		}
	}
	if !strings.Contains(markdown.String(), "|---|---:|") {
		t.Error("not a table of Markdown")
	}
}

// The backend, and our clients of it, without a proxy.
func TestBackend(t *testing.T) {
	ctx := t.Context()
	addr, err := listen(serveHTTP)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dialPlain(addr).client(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for path, size := range map[string]int64{"/1k": 1000, "/100k": 100_000, "/bytes/700000": 700_000, "/bytes/0": 0} {
		if err := c.get(request(path), size); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := c.get(request("/1k"), 999); err == nil {
		t.Error("an answer of the wrong size is taken")
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	for range 200 { // more than a window's worth
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+grpcPath, bytes.NewReader(message()))
		if err != nil {
			t.Fatal(err)
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		if _, err := body.ReadFrom(res.Body); err != nil || !bytes.Equal(body.Bytes(), message()) {
			t.Fatalf("%d bytes, %v", body.Len(), err)
		}
		_ = res.Body.Close()
		if res.Trailer.Get("Grpc-Status") != "0" {
			t.Fatalf("trailers: %v", res.Trailer)
		}
	}
}

func TestOrders(t *testing.T) {
	addr, err := listen(serveTCP)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []byte("SR") {
		conn, err := dialPlain(addr)(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if err := order(conn, what, 3*chunk+1); err != nil {
			t.Errorf("%c: %v", what, err)
		}
		_ = conn.Close()
	}
}

// One answer that is late makes those late that were due meanwhile, and they count so.
func TestOpenLoopOmitsNothing(t *testing.T) {
	const stall, rate, n = 200 * time.Millisecond, 1000, 100
	addr, err := listen(func(conn net.Conn) {
		buf := make([]byte, 4096)
		for first := true; ; first = false {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			if first {
				<-time.After(stall)
			}
			if _, err := conn.Write(answer1K); err != nil {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := dialPlain(addr).clients(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(all)
	took, err := openLoop(all, rate, n)
	if err != nil || len(took) != n {
		t.Fatal(len(took), err)
	}
	if p50 := quantile(took, 0.5); p50 < 100_000 {
		t.Errorf("p50 %v µs: half of the requests were due while the first one stalled", p50)
	}
}

// Every configuration can be filled in.
func TestConfigurations(t *testing.T) {
	s := setup{
		Dir: t.TempDir(), Cert: "cert", Key: "key", Pair: "pair", Front: "127.0.0.1:1", FrontTCP: "127.0.0.1:2",
		HTTP: "127.0.0.1:3", TCP: "127.0.0.1:4", TEE: "sim", StreamModule: "module", Root: true, Files: 9,
	}
	for _, k := range kinds() {
		path, err := s.write(k.conf)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "0.0.0.0") || k.name != "envoy" && !strings.Contains(string(raw), s.Front) {
			t.Errorf("%s:\n%s", k.conf, raw)
		}
		if k.name == "caddy" && !json.Valid(raw) {
			t.Errorf("%s is not JSON", k.conf)
		}
	}
}
