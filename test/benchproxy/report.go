package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// spec is a line of the report.
type spec struct {
	title, work, metric string
	goal                float64 // the greatest ratio that is wanted; 0 for none
	all                 bool    // beside the best of all peers, not of nginx and HAProxy
	added               bool    // shown without what the backend takes by itself; the ratio is of the whole
}

const (
	goalH1       = 0.75
	goalH2       = 0.70
	goalGRPC     = 0.60
	goalOut      = 0.60
	goalIn       = 0.80
	goalNew      = 1.00
	goalIdle     = 1.00
	goalP99      = 1.00
	goalAttested = 1.02
)

func specs() []spec {
	return []spec{
		{title: "HTTP/1.1, 1 KB, 64 connections: µs/request", work: "h1", metric: "cpu", goal: goalH1},
		{title: "HTTP/1.1, 100 KB, 64 connections: µs/request", work: "h1-100k", metric: "cpu", goal: goalH1},
		{title: "HTTP/2 to HTTP/1.1, 1 KB, 10 × 50 streams: µs/request", work: "h2", metric: "cpu", goal: goalH2},
		{title: "gRPC, unary, 1 KB, 10 × 50 streams: µs/call", work: "grpc", metric: "cpu", goal: goalGRPC},
		{title: "new TLS connection with one request: µs", work: "new", metric: "cpu", goal: goalNew},
		{title: "bulk TCP out: µs/MB", work: "tcp-out", metric: "cpu", goal: goalOut},
		{title: "bulk TCP in: µs/MB", work: "tcp-in", metric: "cpu", goal: goalIn},
		{title: "bulk HTTP/1.1 out: µs/MB", work: "http-out", metric: "cpu", goal: goalOut},
		{title: "idle TLS connection: KB of PSS", work: workIdle, metric: "pss", goal: goalIdle, all: true},
		{title: "idle TLS connection: KB of RSS", work: workIdle, metric: "rss"},
		{title: "fixed rate: µs/request", work: workRate, metric: "cpu"},
		{title: "fixed rate: p50, µs added", work: workRate, metric: "p50", added: true},
		{title: "fixed rate: p99, µs added (ratio: of the whole)", work: workRate, metric: "p99", goal: goalP99, added: true},
	}
}

// line is one of the report, with what was measured.
type line struct {
	Title  string             `json:"title"`
	Work   string             `json:"work"`
	Metric string             `json:"metric"`
	Values map[string]float64 `json:"values"` // by peer
	Beside string             `json:"beside,omitempty"`
	Ratio  *float64           `json:"ratio,omitempty"`
	Goal   float64            `json:"goal,omitempty"`
	Missed bool               `json:"missed,omitempty"`
}

// judge compares jurat with another, where both were measured.
func (l *line) judge(ratio float64) {
	if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
		return
	}
	l.Ratio = &ratio
	l.Missed = l.Goal > 0 && ratio > l.Goal
}

// report is all that is written, in whatever form.
type report struct {
	Date     string            `json:"date"`
	Command  string            `json:"command"`
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Rounds   int               `json:"rounds"`
	Setting  string            `json:"setting"`
	Others   string            `json:"others"`
	Peers    []string          `json:"peers"`
	Lines    []line            `json:"lines"`
	Attested []line            `json:"attested"` // values "attested" and "plain"
	Notes    []string          `json:"notes,omitempty"`
	Samples  results           `json:"samples"`
}

// summarise makes the lines of the samples.
func (r *report) summarise() {
	for _, s := range specs() {
		l := line{Title: s.title, Work: s.work, Metric: s.metric, Goal: s.goal, Values: map[string]float64{}}
		for _, p := range r.Peers {
			v := r.Samples.median(s.work, s.metric, p)
			if s.added {
				v = median(r.Samples.each(s.work, s.metric, []string{p, direct}, func(v []float64) float64 { return v[0] - v[1] }))
			}
			if !math.IsNaN(v) {
				l.Values[p] = v
			}
		}
		if len(l.Values) == 0 {
			continue
		}
		others := []string{"nginx", "haproxy"}
		if s.all {
			others = nil
			for _, p := range r.Peers {
				if p != product && p != earlier {
					others = append(others, p)
				}
			}
		}
		if l.Beside = r.Samples.best(s.work, s.metric, others); l.Beside != "" {
			l.judge(r.Samples.ratio(s.work, s.metric, product, l.Beside))
		}
		r.Lines = append(r.Lines, l)
	}
	for _, s := range []spec{
		{title: "HTTP/1.1, 1 KB, 64 connections: µs/request", work: workH1},
		{title: "bulk TCP out: µs/MB", work: workTCP},
	} {
		a, p := r.Samples.median(s.work, "cpu", product), r.Samples.median(s.work, "plain", product)
		if math.IsNaN(a) {
			continue
		}
		l := line{Title: s.title, Work: s.work, Metric: "cpu", Goal: goalAttested, Values: map[string]float64{"attested": a, "plain": p}}
		l.judge(r.Samples.median(s.work, "ratio", product))
		r.Attested = append(r.Attested, l)
	}
}

func (r *report) missed() (n int) {
	for _, l := range append(r.Lines, r.Attested...) {
		if l.Missed {
			n++
		}
	}
	return n
}

// table has columns; all but the first are aligned to the right.
type table [][]string

func (t table) write(w io.Writer, markdown bool) {
	width := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	pad := func(i int, cell string) string {
		space := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
		if i == 0 {
			return cell + space
		}
		return space + cell
	}
	for n, row := range t {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = pad(i, cell)
		}
		if !markdown {
			fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "  "), " "))
			continue
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
		if n == 0 {
			fmt.Fprintf(w, "|---%s|\n", strings.Repeat("|---:", len(row)-1))
		}
	}
}

func figure(v float64, ok bool) string {
	switch {
	case !ok || math.IsNaN(v):
		return "–"
	case math.Abs(v) >= 99.5:
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.1f", v)
	}
}

func ratioFigure(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.3f", v)
}

// verdict is the ratio of a line, its goal, and whether it was met.
func (l *line) verdict() []string {
	if l.Ratio == nil {
		return []string{"–", "", ""}
	}
	cells := []string{fmt.Sprintf("%.2f", *l.Ratio), "", ""}
	if l.Beside != "" {
		cells[0] += " " + l.Beside
	}
	if l.Goal > 0 {
		cells[1], cells[2] = fmt.Sprintf("≤ %.2f", l.Goal), "met"
		if l.Missed {
			cells[2] = "MISSED"
		}
	}
	return cells
}

func (r *report) tables() (costs, attested, rates table) {
	costs = table{append(append([]string{"CPU of the proxy, or as said"}, r.Peers...), "jurat ÷ better", "goal", "")}
	changes := slices.Contains(r.Peers, earlier)
	if changes {
		costs[0] = append(costs[0], "jurat ÷ before")
	}
	for _, l := range r.Lines {
		row := []string{l.Title}
		for _, p := range r.Peers {
			v, ok := l.Values[p]
			row = append(row, figure(v, ok))
		}
		row = append(row, l.verdict()...)
		if changes {
			row = append(row, ratioFigure(r.Samples.ratio(l.Work, l.Metric, product, earlier)))
		}
		costs = append(costs, row)
	}
	attested = table{{"jurat, established connections", "attested", "plain", "ratio", "goal", ""}}
	for _, l := range r.Attested {
		row := []string{l.Title, figure(l.Values["attested"], true), figure(l.Values["plain"], true)}
		attested = append(attested, append(row, l.verdict()...))
	}
	rates = table{append([]string{"rate ÷ jurat's (share of its core)"}, r.Peers...)}
	for _, l := range r.Lines {
		if l.Metric != "cpu" || l.Work == workRate || len(r.Samples[l.Work][product]) == 0 {
			continue
		}
		row := []string{l.Work}
		for _, p := range r.Peers {
			ratio := r.Samples.ratio(l.Work, "rate", p, product)
			if math.IsNaN(ratio) {
				row = append(row, "–")
				continue
			}
			row = append(row, fmt.Sprintf("%.2f (%.0f %%)", ratio, 100*r.Samples.median(l.Work, "busy", p)))
		}
		rates = append(rates, row)
	}
	return costs, attested, rates
}

func (r *report) write(w io.Writer, markdown bool) {
	say := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	if markdown {
		say("# The data plane beside others\n\nWritten by `%s`; what was measured, and how, is in test/benchproxy.\n", r.Command)
	}
	var versions []string
	for _, p := range append(r.Peers, "wrk", "h2load", "go") {
		if v := r.Versions[p]; v != "" {
			versions = append(versions, p+" "+v)
		}
	}
	for _, s := range []string{r.Date + "; " + r.Machine, strings.Join(versions, ", "), r.Setting, r.Others} {
		if markdown {
			s = "- " + s
		}
		say("%s", s)
	}
	costs, attested, rates := r.tables()
	for _, t := range []table{costs, attested, rates} {
		if len(t) > 1 {
			say("")
			t.write(w, markdown)
		}
	}
	if len(r.Notes) > 0 {
		say("")
	}
	for _, n := range r.Notes {
		say("- %s", n)
	}
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(r)
}
