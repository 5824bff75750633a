package accesslog_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/accesslog"
)

func TestGolden(t *testing.T) {
	var text, lines []byte
	for _, r := range records() {
		text = accesslog.AppendText(append(text, "# "+r.name+"\n"...), r.record)
		lines = accesslog.AppendJSON(lines, r.record)
	}
	golden(t, "testdata/text.golden", text)
	golden(t, "testdata/json.golden", lines)
}

// Law 6: no secret in a log, wherever a client puts it.
func TestNoSecret(t *testing.T) {
	for _, r := range records() {
		for _, b := range [][]byte{accesslog.AppendText(nil, r.record), accesslog.AppendJSON(nil, r.record)} {
			if bytes.Contains(b, []byte("s3cret")) {
				t.Errorf("%s: %s", r.name, b)
			}
		}
	}
	for _, id := range []string{"4bf92f35", "4BF9-2f", strings.Repeat("a", 64)} {
		if !bytes.Contains(accesslog.AppendText(nil, &accesslog.Record{TraceID: id}), []byte(" trace_id="+id+" ")) {
			t.Errorf("%s is not written", id)
		}
	}
	for _, id := range []string{strings.Repeat("a", 65), "secret", "a b", "a\n", "abc/", "abc:", "abg", "ABG", "ab`", "ab@"} {
		if !bytes.Contains(accesslog.AppendText(nil, &accesslog.Record{TraceID: id}), []byte(" trace_id=- ")) {
			t.Errorf("%q is written", id)
		}
	}
}

// textLine is what a line has to look like. Every field is there whatever is in the others.
var textLine = func() *regexp.Regexp {
	const word, quoted = `([!#-\[\]-~]|\\x[0-9a-f]{2}|\\\.\.\.)+`, `(-|"([ !#-\[\]-~]|\\x[0-9a-f]{2}|\\\.\.\.)+")`
	const seconds, peer = `-?\d+\.\d{6}`, `(-|"(affirmed|refused|undecided)( ` + word + `){10}")`
	return regexp.MustCompile(`^` + word + ` - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "` + word + ` ` + word + ` ` + word + `" (-|\d+) \d+` +
		` received=\d+ duration=` + seconds + ` first_byte=(-|` + seconds + `) code=(-|J\d{3}) flags=(-|[A-Z,]+) client=` + quoted + ` listener=` + quoted +
		` sni=` + quoted + ` alpn=` + quoted + ` authority=` + quoted + ` virtual_host=` + quoted + ` route=` + quoted + ` cluster=` + quoted + ` endpoint=` + quoted +
		` tries=\d+ trace_id=` + word + ` downstream=` + peer + ` upstream=` + peer + "\n$")
}()

func printable(b []byte) error {
	if len(b) == 0 || bytes.IndexByte(b, '\n') != len(b)-1 {
		return fmt.Errorf("not one line: %q", b)
	}
	for _, c := range b[:len(b)-1] {
		if c < ' ' || c > '~' {
			return fmt.Errorf("byte %#x in %q", c, b)
		}
	}
	return nil
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			n, _ := strconv.ParseUint(s[i+2:i+4], 16, 8)
			b.WriteByte(byte(n))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// decoded is a line of JSON.
type decoded struct {
	Start      time.Time
	Duration   float64
	FirstByte  *float64 `json:"first_byte"`
	Listener   string
	Client     string
	SNI        string
	ALPN       string
	Protocol   string
	Method     string
	Authority  string
	Path       string
	Status     int
	Code       string
	Flags      []string
	Received   uint64
	Sent       uint64
	VHost      string `json:"virtual_host"`
	Route      string
	Cluster    string
	Endpoint   string
	Tries      int
	TraceID    string `json:"trace_id"`
	Downstream *peer
	Upstream   *peer
	Cut        bool
}

type peer struct {
	Verdict     string
	Code        string
	Binding     string
	Vendor      string
	TEE         string
	Generation  string
	Simulated   bool
	Reconnected bool
	Age         *float64 `json:"evidence_age"`
	Policy      string
	Evidence    string `json:"evidence_sha256"`
}

func decode(b []byte) (d decoded, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return d, dec.Decode(&d)
}

// utf8Of is how JSON shows bytes that are none.
func utf8Of(s string) string { return string([]rune(s)) }

// check holds both formats against r.
func check(r *accesslog.Record) error {
	text, raw := accesslog.AppendText([]byte("before"), r), accesslog.AppendJSON([]byte("before"), r)
	for _, b := range [][]byte{text, raw} {
		if !bytes.HasPrefix(b, []byte("before")) {
			return fmt.Errorf("overwritten: %q", b)
		}
		if err := printable(b[6:]); err != nil {
			return err
		}
	}
	if !textLine.Match(text[6:]) {
		return fmt.Errorf("not a line of the format: %s", text)
	}
	d, err := decode(raw[6:])
	if err != nil {
		return fmt.Errorf("%w: %s", err, raw)
	}
	if d.Cut {
		return nil
	}
	for _, f := range []struct{ field, got, want string }{
		{"listener", d.Listener, r.Listener},
		{"client", d.Client, r.Client},
		{"sni", d.SNI, r.SNI},
		{"alpn", d.ALPN, r.ALPN},
		{"route", d.Route, r.Route},
		{"cluster", d.Cluster, r.Cluster},
		{"endpoint", d.Endpoint, r.Endpoint},
		{"virtual_host", d.VHost, r.VirtualHost},
	} {
		if f.got != utf8Of(f.want) {
			return fmt.Errorf("%s: got %q, want %q", f.field, f.got, f.want)
		}
		if f.want == "" {
			continue
		}
		_, rest, _ := strings.Cut(string(text), " "+f.field+"=\"")
		if value, _, _ := strings.Cut(rest, `"`); unescape(value) != f.want {
			return fmt.Errorf("%s: got %q, want %q", f.field, value, f.want)
		}
	}
	if !strings.HasPrefix(utf8Of(r.Path), d.Path) || !strings.HasSuffix(utf8Of(r.Authority), d.Authority) {
		return fmt.Errorf("%q %q: %s", r.Path, r.Authority, raw)
	}
	return nil
}

func TestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := func(name string) string {
			if rapid.Bool().Draw(t, name+" bytes") {
				return string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, name))
			}
			return rapid.String().Draw(t, name)
		}
		r := &accesslog.Record{
			Start:    time.Unix(rapid.Int64Range(0, 1<<35).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns")),
			Duration: time.Duration(rapid.Int64().Draw(t, "d")), FirstByte: time.Duration(rapid.Int64().Draw(t, "f")),
			Listener: s("listener"), Client: s("client"), SNI: s("sni"), ALPN: s("alpn"), Protocol: s("protocol"),
			Method: s("method"), Authority: s("authority"), Path: s("path"), Status: rapid.IntRange(-1, 999).Draw(t, "status"),
			Flags: accesslog.Flags(rapid.Uint32().Draw(t, "flags")), Received: rapid.Uint64().Draw(t, "in"), Sent: rapid.Uint64().Draw(t, "out"),
			VirtualHost: s("vhost"), Route: s("route"), Cluster: s("cluster"), Endpoint: s("endpoint"), Tries: rapid.IntRange(-1, 9).Draw(t, "tries"), TraceID: s("trace"),
		}
		if rapid.Bool().Draw(t, "attested") {
			r.Downstream = appraise(attest.Claims{Vendor: s("vendor"), TEE: s("tee"), Generation: s("generation")}, attest.LevelKey, r.Start.Add(-time.Duration(rapid.Int32().Draw(t, "age"))), "")
		}
		if err := check(r); err != nil {
			t.Fatal(err)
		}
		d, _ := decode(accesslog.AppendJSON(nil, r))
		if !d.Start.Equal(r.Start.Truncate(time.Microsecond)) || d.Received != r.Received || d.Sent != r.Sent || d.Status != max(r.Status, 0) || d.Tries != max(r.Tries, 0) {
			t.Fatalf("%+v of %+v", d, r)
		}
		text := string(accesslog.AppendText(nil, r))
		if want := "[" + r.Start.UTC().Format("02/Jan/2006:15:04:05 -0700") + "]"; !strings.Contains(text, want) {
			t.Fatalf("no %s in %s", want, text)
		}
		us := r.Duration.Microseconds()
		sign := ""
		if us < 0 {
			sign = "-"
		}
		if want := fmt.Sprintf(" duration=%s%d.%06d ", sign, abs(us/1e6), abs(us%1e6)); !strings.Contains(text, want) {
			t.Fatalf("no %s in %s", want, text)
		}
	})
}

func abs(n int64) int64 { return max(n, -n) }

func FuzzLine(f *testing.F) {
	for _, r := range records() {
		f.Add(r.record.Client, r.record.SNI, r.record.Method, r.record.Authority, r.record.Path, r.record.TraceID)
	}
	f.Fuzz(func(t *testing.T, client, sni, method, authority, path, trace string) {
		r := &accesslog.Record{Client: client, SNI: sni, Method: method, Authority: authority, Path: path, TraceID: trace, Protocol: method, ALPN: sni, Listener: path}
		if err := check(r); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever is as long as it may be, a line is not longer than what there is room for.
func TestLongest(t *testing.T) {
	evil := strings.Repeat("\x01", 1<<16)
	r := &accesslog.Record{
		Listener: evil, Client: evil, SNI: evil, ALPN: evil, Protocol: evil, Method: evil, Authority: evil, Path: evil,
		VirtualHost: evil, Route: evil, Cluster: evil, Endpoint: evil, TraceID: evil,
	}
	for _, b := range [][]byte{accesslog.AppendText(nil, r), accesslog.AppendJSON(nil, r)} {
		if err := printable(b); err != nil || len(b) > 400<<10 {
			t.Errorf("%d: %v", len(b), err)
		}
	}
	if d, err := decode(accesslog.AppendJSON(nil, r)); err != nil || !d.Cut || len(d.Path) != 4096 {
		t.Errorf("%v %d", err, len(d.Path))
	}
	if got := string(accesslog.AppendText(nil, &accesslog.Record{SNI: strings.Repeat("x", 4097)})); !strings.Contains(got, ` sni="`+strings.Repeat("x", 4096)+`\..." `) {
		t.Error(got)
	}
	// What is cut off in the middle of a character does not become another one.
	for at := range 5 {
		s := strings.Repeat("x", 4096-at) + "\U0001f600" + "x"
		d, err := decode(accesslog.AppendJSON(nil, &accesslog.Record{Route: s}))
		if want := strings.TrimSuffix(s, "\U0001f600x"); at < 4 && d.Route != want || at == 4 && d.Route != want+"\U0001f600" || err != nil || !d.Cut {
			t.Errorf("%d: %v %d %q", at, err, len(d.Route), d.Route[len(d.Route)-4:])
		}
	}
}

func TestFlags(t *testing.T) {
	all := accesslog.NoClusterFound<<1 - 1
	const want = "UH,UT,UF,UC,UO,NR,DC,URX,SI,DPE,NC"
	for _, c := range []struct {
		flags accesslog.Flags
		want  string
	}{
		{0, "-"},
		{accesslog.NoHealthyUpstream, "UH"},
		{accesslog.DownstreamConnectionTermination | accesslog.UpstreamRequestTimeout, "UT,DC"},
		{all, want},
		{^accesslog.Flags(0), want},
		{^all, "-"},
		{accesslog.UpstreamConnectionFailure, "UF"},
		{accesslog.UpstreamOverflow, "UO"},
		{accesslog.NoRouteFound, "NR"},
		{accesslog.UpstreamRetryLimitExceeded, "URX"},
		{accesslog.UpstreamConnectionTermination, "UC"},
		{accesslog.StreamIdleTimeout, "SI"},
		{accesslog.DownstreamProtocolError, "DPE"},
		{accesslog.NoClusterFound, "NC"},
	} {
		if got := c.flags.String(); got != c.want {
			t.Errorf("%b: got %s, want %s", c.flags, got, c.want)
		}
	}
}

// What has no port is an address all the same.
func TestClient(t *testing.T) {
	for client, want := range map[string]string{
		"": "-", "192.0.2.7:1": "192.0.2.7", "192.0.2.7": "192.0.2.7", "[2001:db8::7]:1": "2001:db8::7", "2001:db8::7": "2001:db8::7", "@": "@", "a b": `a\x20b`,
	} {
		if got, _, _ := strings.Cut(string(accesslog.AppendText(nil, &accesslog.Record{Client: client})), " - - ["); got != want {
			t.Errorf("%s: got %s", client, got)
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	for _, format := range []accesslog.Format{accesslog.Text, accesslog.JSON} {
		w, r := newWriter(t, accesslog.Stream(io.Discard), accesslog.Options{Format: format}), full()
		if n := testing.AllocsPerRun(1000, func() { w.Log(r) }); n != 0 {
			t.Errorf("log: %v allocations", n)
		}
		closeWriter(t, w)
	}

	r, b := full(), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { accesslog.AppendText(b, r) }); n != 0 {
		t.Errorf("text: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { accesslog.AppendJSON(b, r) }); n != 0 {
		t.Errorf("JSON: %v allocations", n)
	}
	var off *accesslog.Writer
	if n := testing.AllocsPerRun(100, func() { off.Log(r) }); n != 0 {
		t.Errorf("off: %v allocations", n)
	}
}

// The page names every field in the order in which it is written, and no other.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	table := func(heading string) (names []string) {
		_, section, _ := strings.Cut(string(page), "\n"+heading+"\n")
		section, _, _ = strings.Cut(section, "\n#")
		for line := range strings.SplitSeq(section, "\n") {
			if name, ok := strings.CutPrefix(line, "| `"); ok {
				name, _, _ = strings.Cut(name, "`")
				names = append(names, name)
			}
		}
		return names
	}
	for heading, raw := range map[string][]byte{
		"### Fields": accesslog.AppendJSON(nil, full()),
		"### What a peer proved": func() []byte {
			var d struct{ Downstream json.RawMessage }
			_ = json.Unmarshal(accesslog.AppendJSON(nil, full()), &d)
			return d.Downstream
		}(),
	} {
		if got, want := table(heading), keys(raw); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: documented are %q, written are %q", heading, got, want)
		}
	}
	want := accesslog.Flags(1<<32 - 1).String()
	if got := strings.Join(table("### Flags"), ","); got != want {
		t.Errorf("documented are %s, written are %s", got, want)
	}
}

// keys are those of an object, in order.
func keys(raw []byte) (all []string) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	depth, key := 0, true
	for {
		token, err := dec.Token()
		if err != nil {
			return all
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
			key = depth == 1
			continue
		case json.Delim('}'), json.Delim(']'):
			depth--
			key = depth == 1
			continue
		}
		if depth == 1 && key {
			all = append(all, token.(string))
		}
		key = depth == 1 && !key
	}
}
