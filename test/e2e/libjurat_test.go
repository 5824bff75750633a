package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/test/vectors"
)

// library builds libjurat with its header beside it, by the recipe of the Makefile, and answers its file.
func (l *lab) library() string {
	l.Helper()
	need(l.T, "cc", "python3", "make")
	dir := l.path("lib")
	make := exec.Command("make", "-C", "../..", "--no-print-directory", "libjurat", "LIBDIR="+dir)
	if out, err := make.CombinedOutput(); err != nil {
		l.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "libjurat.so")
}

// question is one appraisal, as the library and as the command take it. Files are paths.
type question struct {
	name                   string
	policy                 string
	record, chain          string // of the record's chain, without what came beside it
	evidence, format       string
	parts                  map[string]string
	stapled                []string
	at, target, reportData string
	anyData                bool
	endorsements, binding  string
	eventLog               string
}

func (q question) command() []string {
	args := []string{"verify", "--json", "--offline", "-p", q.policy}
	add := func(name, value string) {
		if value != "" {
			args = append(args, name, value)
		}
	}
	add("--at", q.at)
	add("--evidence", q.evidence)
	add("--format", q.format)
	add("--report-data", q.reportData)
	add("--endorsements", q.endorsements)
	add("--unsafe-binding", q.binding)
	add("--event-log", q.eventLog)
	for name, file := range q.parts {
		add("--part", name+"="+file)
	}
	for _, file := range q.stapled {
		add("--endorsement", file)
	}
	if q.anyData {
		args = append(args, "--unsafe-any-report-data")
	}
	if file := q.record + q.chain; file != "" {
		args = append(args, file)
	}
	return args
}

// arguments are those of Library.appraise, in JSON: text as it is, bytes in an object.
func (q question) arguments(t *testing.T) map[string]any {
	t.Helper()
	read := func(file string) any {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return map[string][]byte{"bytes": raw}
	}
	args := map[string]any{"policy": read(q.policy)}
	for name, file := range map[string]string{"record": q.record, "evidence": q.evidence, "event_log": q.eventLog} {
		if file != "" {
			args[name] = read(file)
		}
	}
	for name, text := range map[string]string{"format": q.format, "time": q.at, "target": q.target, "endorsements": q.endorsements, "unsafe_binding": q.binding} {
		if text != "" {
			args[name] = text
		}
	}
	switch {
	case q.evidence != "":
		args["target"] = filepath.Base(q.evidence)
	case q.record != "":
		args["target"] = q.record
	case q.chain != "":
		rec := readRecord(t, q.chain)
		var chain []any
		for _, der := range rec.Chain {
			chain = append(chain, map[string][]byte{"bytes": der})
		}
		args["chain"], args["target"] = chain, rec.Target
	}
	if q.reportData != "" {
		var raw []byte
		if _, err := fmt.Sscanf(q.reportData, "%x", &raw); err != nil {
			t.Fatal(err)
		}
		args["report_data"] = map[string][]byte{"bytes": raw}
	}
	if q.anyData {
		args["unsafe_any_report_data"] = true
	}
	if q.parts != nil {
		parts := map[string]any{}
		for name, file := range q.parts {
			parts[name] = read(file)
		}
		args["parts"] = parts
	}
	var stapled []any
	for _, file := range q.stapled {
		stapled = append(stapled, read(file))
	}
	if stapled != nil {
		args["stapled"] = stapled
	}
	return args
}

// pythonDriver asks every question of eight threads at once, and answers what all of them got. What the library does to signals
// goes to stderr.
const pythonDriver = `
import base64, json, sys, threading
sys.path.insert(0, sys.argv[1])
import jurat

def caught():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1], 16) for line in f if line.startswith("SigCgt:"))

before = caught()
lib = jurat.Library(sys.argv[2])
assert lib.version()["go"].startswith("go"), lib.version()
mask = caught() & ~before
print("signals", *[n + 1 for n in range(64) if mask >> n & 1], file=sys.stderr)

for wrong in (5, True, [1, 2], object()):  # a number would be as many zero bytes
    try:
        lib.appraise(policy=b"x", evidence=b"x", report_data=wrong)
    except TypeError:
        continue
    raise AssertionError(wrong)

def value(v):
    if isinstance(v, dict):
        return base64.b64decode(v["bytes"]) if list(v) == ["bytes"] else {k: value(x) for k, x in v.items()}
    return [value(x) for x in v] if isinstance(v, list) else v

def ask(q):
    a = lib.appraise(**value(q))
    assert a.affirmed == (a.verdict.get("verdict") == "affirmed")
    return [a.code, base64.b64encode(a.json).decode()]

questions = json.load(sys.stdin)
answers = [None] * 8
def work(i):
    answers[i] = [{k: v for k, v in enumerate(ask(q))} for q in questions]
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for t in threads: t.start()
for t in threads: t.join()
assert all(a is not None and a == answers[0] for a in answers)
json.dump([{"code": a[0], "json": a[1]} for a in answers[0]], sys.stdout)
`

func (l *lab) ask(library string, questions []map[string]any) (answers []struct {
	Code int
	JSON []byte
}, stderr string,
) {
	l.Helper()
	in, err := json.Marshal(questions)
	if err != nil {
		l.Fatal(err)
	}
	python, err := filepath.Abs("../../cmd/libjurat/python")
	if err != nil {
		l.Fatal(err)
	}
	cmd := exec.CommandContext(l.Context(), "python3", "-B", "-c", pythonDriver, python, library)
	cmd.Stdin = bytes.NewReader(in)
	out := l.finish(cmd)
	if out.code != 0 {
		l.Fatalf("%+v", out)
	}
	if err := json.Unmarshal([]byte(out.stdout), &answers); err != nil || len(answers) != len(questions) {
		l.Fatalf("%v: %+v", err, out)
	}
	return answers, out.stderr
}

func readRecord(t *testing.T, file string) *record.Record {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func (l *lab) writeRecord(name string, rec *record.Record) string {
	l.Helper()
	raw, err := record.Encode(rec)
	if err != nil {
		l.Fatal(err)
	}
	return l.write(name, string(raw))
}

const realPolicy = `policy: real
platforms: {allow: [amd *, intel *, aws nitro, arm cca, tcg tpm]}
workload: {measurement: any, debug: any, privilege: 3, migration: any}
binding: none
revocation: unchecked
`

// The library gives the command's verdicts, byte for byte.
func TestLibrary(t *testing.T) {
	library := newLab(t).library()
	t.Run("vectors", func(t *testing.T) { libraryOverVectors(t, library) })
	t.Run("peers", func(t *testing.T) { libraryOverPeers(t, library) })
	t.Run("wrong", func(t *testing.T) { libraryOverWrongRequests(t, library) })
}

// Evidence of real machines.
func libraryOverVectors(t *testing.T, library string) {
	l := newLab(t)
	dir := vectors.Dir(t)
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	policy := l.write("real.yaml", realPolicy)
	strict := l.write("strict.yaml", strings.Replace(realPolicy, "revocation: unchecked\n", "", 1))
	var ak struct {
		Public []byte `json:"ak_public"`
	}
	if err := json.Unmarshal(vectors.Read(t, "tpm/evidence.json"), &ak); err != nil {
		t.Fatal(err)
	}
	akPub := l.write("ak.der", string(ak.Public))
	base := []question{
		{evidence: at("snp/milan-v2.report"), format: "snp", stapled: []string{at("snp/milan-v2.vcek.der")}, at: "2026-01-01T00:00:00Z"},
		{evidence: at("snp/milan-v2.report"), format: "snp", stapled: []string{at("snp/milan-v2.bad-vcek-new.der")}, at: "2026-01-01T00:00:00Z"},
		{evidence: at("snp/milan-v2.report"), format: "snp", stapled: []string{at("snp/milan-v2.bad-vcek-legacy.der")}, at: "2026-01-01T00:00:00Z"},
		{evidence: at("snp/milan-v3-vlek.report"), format: "snp", stapled: []string{at("snp/milan-v3-vlek.vlek.der")}, at: "2025-12-01T00:00:00Z"},
		{evidence: at("snp/milan-v3-vlek.report"), format: "snp", stapled: []string{at("snp/milan-v3-vlek.vlek.der")}, at: "2026-01-01T00:00:00Z"},
		{evidence: at("snp/turin-v5.report"), format: "snp", stapled: []string{at("snp/turin-v5.vcek.der")}, at: "2026-06-01T00:00:00Z"},
		{evidence: at("snp/turin-v5.report"), format: "snp", endorsements: at("snp/turin-v5.vcek.der"), at: "2026-06-01T00:00:00Z"},
		{evidence: at("snp/turin-v5.report"), format: "snp", at: "2026-06-01T00:00:00Z"},
		{evidence: at("snp/turin-v5.report"), format: "tdx", at: "2026-06-01T00:00:00Z"},
		{evidence: at("tdx/quote-v4.bin"), format: "tdx", stapled: []string{at("tdx/quote-v4.collateral.json")}, at: "2025-06-25T00:00:00Z"},
		{evidence: at("tdx/quote-v4.bin"), format: "tdx", stapled: []string{at("tdx/quote-v4.collateral.json")}, at: "2026-06-25T00:00:00Z"},
		{evidence: at("tdx/quote-v4.bin"), format: "tdx", stapled: []string{at("tdx/quote-v4.collateral.json")}, at: "2025-06-25T00:00:00Z", eventLog: policy},
		{evidence: at("tdx/quote-v5.bin"), format: "tdx", at: "2026-01-01T00:00:00Z"},
		{evidence: at("sgx/quote-v3.bin"), format: "sgx", stapled: []string{at("sgx/quote-v3.collateral.json")}, at: "2025-06-25T00:00:00Z"},
		{evidence: at("nitro/production.cose"), format: "nitro", at: "2025-12-25T16:04:19Z"},
		{evidence: at("nitro/production.cose"), format: "nitro", at: "2025-12-25T22:00:00Z"},
		{evidence: at("nitro/debug.cose"), format: "nitro", at: "2025-12-25T08:20:46Z"},
		{evidence: at("cca/token.cbor"), format: "cca", stapled: []string{at("cca/platform.pub")}, at: "2026-01-01T00:00:00Z"},
		{evidence: at("cca/token.cbor"), format: "cca", at: "2026-01-01T00:00:00Z"},
		{evidence: at("tpm/evidence.json"), format: "tpm", stapled: []string{akPub}, at: "2026-01-01T00:00:00Z"},
		{evidence: at("tpm/evidence.json"), format: "tpm", at: "2026-01-01T00:00:00Z"},
		{evidence: at("azure/snp.hcl"), format: "azure-snp", parts: map[string]string{"tpm-quote": at("azure/snp.tpm-quote.msg"), "tpm-signature": at("azure/snp.tpm-quote.sig")}, stapled: []string{at("azure/snp.vcek.pem")}, at: "2026-01-01T00:00:00Z"},
		{evidence: at("azure/snp.hcl"), format: "azure-snp", at: "2026-01-01T00:00:00Z"},
		{evidence: at("azure/tdx.hcl"), format: "azure-tdx", parts: map[string]string{"td-quote": at("azure/tdx.td-quote.bin")}, at: "2026-01-01T00:00:00Z"},
	}
	var all []question
	for _, q := range base {
		for _, p := range []string{policy, strict} {
			q.name, q.policy, q.anyData, q.reportData = fmt.Sprintf("%s as %s at %s by %s", filepath.Base(q.evidence), q.format, q.at, filepath.Base(p)), p, true, ""
			all = append(all, q)
		}
		q.anyData, q.reportData, q.name = false, strings.Repeat("11", 64), q.name+", report data"
		all = append(all, q)
	}
	verdicts := l.same(library, all)
	for _, want := range []string{"affirmed", "refused", "undecided"} {
		if verdicts[want] == 0 {
			t.Errorf("no question was answered with %s: %v", want, verdicts)
		}
	}
	t.Logf("%d questions: %v", len(all), verdicts)
}

// same holds the library against the command, and counts verdicts.
func (l *lab) same(library string, all []question) map[string]int {
	l.Helper()
	var asked []map[string]any
	for _, q := range all {
		asked = append(asked, q.arguments(l.T))
	}
	answers, _ := l.ask(library, asked)
	verdicts := map[string]int{}
	for i, q := range all {
		want := l.jurat(q.command()...)
		if got := answers[i]; got.Code != want.code || string(got.JSON) != want.stdout {
			l.Errorf("%s: the library: %d\n%s\nthe command: %d\n%s%s", q.name, got.Code, got.JSON, want.code, want.stdout, want.stderr)
		}
		var v struct{ Verdict string }
		if err := json.Unmarshal(answers[i].JSON, &v); err != nil {
			l.Error(err)
		}
		verdicts[v.Verdict]++
	}
	return verdicts
}

// Peers of simulated platforms: records of sessions, chains alone, and what somebody made of them.
func libraryOverPeers(t *testing.T, library string) {
	l := newLab(t)
	var all []question
	for _, tee := range []string{"sim:snp:genoa", "sim:tdx", "sim:nitro", "sim:cca"} {
		kind := strings.NewReplacer(":", "-").Replace(tee)
		server := l.start("serve", "--log", "json", "--tee", tee+",dir="+l.path(kind), "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1")
		_, port, _ := strings.Cut(server.address(), ":")
		text := l.must(0, "policy", "init", "--binding", "key", "localhost:"+port).stdout
		if tee == "sim:cca" { // which has no revocation
			text += "revocation: unchecked\n"
		}
		policy := l.write(kind+".yaml", text)
		session := l.write(kind+"-session.yaml", strings.Replace(text, "binding: key", "binding: session", 1))
		file := l.path(kind + ".jurat")
		live := l.must(0, "verify", "--json", "-p", policy, "--save", file, "localhost:"+port)
		rec := readRecord(t, file)
		now := rec.Time.Format(time.RFC3339Nano)
		bare := *rec
		bare.Session = nil
		chain := l.writeRecord(kind+"-chain.jurat", &bare)
		other := bare
		other.Target, other.ServerName = "other.example:443", "other.example"
		broken := bare
		broken.Chain = [][]byte{bytes.Clone(rec.Chain[0])}
		broken.Chain[0][len(broken.Chain[0])-1] ^= 1
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range []question{
			{record: file},
			{record: file, at: rec.Time.AddDate(0, 1, 0).Format(time.RFC3339)},
			{record: chain},
			{chain: chain, at: now},
			{chain: l.writeRecord(kind+"-other.jurat", &other), at: now},
			{chain: l.writeRecord(kind+"-broken.jurat", &broken), at: now},
			{record: l.write(kind+"-junk.jurat", string(raw[:len(raw)/2])), at: now},
		} {
			for _, p := range []string{policy, session} {
				for _, binding := range []string{"", "key"} {
					q.policy, q.binding, q.name = p, binding, fmt.Sprintf("%s%s at %s by %s, %s", q.record, q.chain, q.at, p, binding)
					all = append(all, q)
				}
			}
		}
		answers, signals := l.ask(library, []map[string]any{question{policy: policy, record: file}.arguments(t)})
		if string(answers[0].JSON) != live.stdout {
			t.Errorf("%s: not the verdict of the day\n%s\n%s", tee, answers[0].JSON, live.stdout)
		}
		checkSignals(t, signals)
	}
	verdicts := l.same(library, all)
	if verdicts["affirmed"] == 0 || verdicts["refused"] == 0 {
		t.Errorf("%v", verdicts)
	}
	t.Logf("%d questions: %v", len(all), verdicts)
	exampleInC(l, library, all[0])
}

// checkSignals: Ctrl-C, a manager's SIGTERM and a child's end are the program's own business.
func checkSignals(t *testing.T, stderr string) {
	t.Helper()
	line := strings.Fields(stderr)
	if len(line) == 0 || line[0] != "signals" {
		t.Fatalf("%q", stderr)
	}
	for _, n := range line[1:] {
		switch n {
		case "7", "8", "11", "13", "23": // SIGBUS, SIGFPE, SIGSEGV, SIGPIPE, SIGURG, as jurat.h says
		case "32", "33": // which the C library keeps for itself
		default:
			t.Errorf("loading takes signal %s", n)
		}
	}
}

// exampleInC compiles the example as a program of its own, with all warnings.
func exampleInC(l *lab, library string, q question) {
	dir := filepath.Dir(library)
	program := filepath.Join(dir, "appraise")
	cc := l.run("cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-I", dir, "-o", program, "../../cmd/libjurat/example/appraise.c", "-L", dir, "-ljurat", "-Wl,-rpath,"+dir)
	if cc.code != 0 {
		l.Fatalf("%+v", cc)
	}
	want := l.jurat(q.command()...)
	if got := l.run(program, q.policy, q.record); got.code != want.code || got.stdout != want.stdout {
		l.Errorf("%+v\n%+v", got, want)
	}
	large := l.write("large", strings.Repeat("#", 16<<20+1))
	if got := l.run(program, large, q.record); got.code != 2 || !strings.Contains(got.stdout, `"error"`) {
		l.Errorf("%+v", got)
	}
}

// Requests that are wrong are answered, and never with a verdict.
func libraryOverWrongRequests(t *testing.T, library string) {
	l := newLab(t)
	policy := l.write("p.yaml", realPolicy)
	b64 := func(s string) map[string]string {
		return map[string]string{"bytes": base64.StdEncoding.EncodeToString([]byte(s))}
	}
	good := func(change func(map[string]any)) map[string]any {
		q := question{policy: policy}.arguments(t)
		q["evidence"], q["format"], q["time"], q["unsafe_any_report_data"] = b64("x"), "snp", "2026-01-01T00:00:00Z", true
		change(q)
		return q
	}
	questions := []map[string]any{
		good(func(q map[string]any) { delete(q, "time") }),
		good(func(q map[string]any) { q["time"] = "now" }),
		good(func(q map[string]any) { delete(q, "format") }),
		good(func(q map[string]any) { q["format"] = "snq" }),
		good(func(q map[string]any) { q["policy"] = "policy: [" }),
		good(func(q map[string]any) { delete(q, "unsafe_any_report_data") }),
		good(func(q map[string]any) { q["report_data"] = b64(strings.Repeat("x", 64)) }),
		good(func(q map[string]any) { delete(q, "unsafe_any_report_data"); q["report_data"] = b64("short") }),
		good(func(q map[string]any) { q["record"] = b64("{}") }),
		good(func(q map[string]any) { delete(q, "evidence") }),
		good(func(q map[string]any) { q["unsafe_binding"] = "none" }),
		good(func(q map[string]any) { q["endorsements"] = l.path("nowhere") }),
		good(func(q map[string]any) { q["evidence"] = b64(strings.Repeat("x", 16<<20)) }),
	}
	answers, _ := l.ask(library, questions)
	for i, a := range answers {
		var e struct {
			Error struct{ Code, Message, Remedy string }
		}
		if err := json.Unmarshal(a.JSON, &e); err != nil || a.Code != 2 || e.Error.Code == "" || e.Error.Message == "" {
			t.Errorf("question %d: %d, %s", i, a.Code, a.JSON)
		}
	}
}
