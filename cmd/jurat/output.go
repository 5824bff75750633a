package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
)

func writeJSON(w io.Writer, v any) error { return judge.WriteJSON(w, v) }

func verdictOf(ap *appraisal) judge.Verdict { return judge.VerdictOf(ap.target, ap.shown, ap.result) }

// transcript writes the checks of an appraisal for people. Every line of a simulated platform says so.
func transcript(w io.Writer, v judge.Verdict, policyFile string) {
	p := &printer{w: w}
	if v.Simulated {
		p.prefix = "SIMULATED  "
	}
	head := v.Target
	if c := v.Claims; c != nil {
		head += fmt.Sprintf("   %s · %s · bound to %s", c.Product, strings.ToUpper(c.TEE), bound(v.Binding))
		if v.Dialect != "" {
			head += " · dialect " + v.Dialect
		}
	}
	p.line("%s", printable(strings.TrimSpace(head)))
	p.line("judged at %s by %s %s", v.Time.Format(time.RFC3339), printable(policyFile), v.Policy.ID)
	var groups []string
	members := map[string][]attest.Check{}
	for _, c := range v.Checks {
		g, _, _ := strings.Cut(c.ID, ".")
		if members[g] == nil {
			groups = append(groups, g)
		}
		members[g] = append(members[g], c)
	}
	for _, g := range groups {
		p.line("")
		p.line("%s", printable(g))
		for _, c := range members[g] {
			p.check(c, policyFile)
		}
	}
	if len(v.NotChecked) > 0 {
		p.line("")
		p.line("not checked")
		for _, n := range v.NotChecked {
			p.line("  --    %s", printable(n))
		}
	}
	p.line("")
}

func bound(l attest.Level) string {
	switch l {
	case attest.LevelSession:
		return "this session"
	case attest.LevelNonce:
		return "this key and our nonce"
	case attest.LevelKey:
		return "this key"
	case attest.LevelPinned:
		return "a pinned key"
	default:
		return "nothing"
	}
}

type printer struct {
	w      io.Writer
	prefix string
}

func (p *printer) line(format string, args ...any) {
	fmt.Fprintln(p.w, strings.TrimRight(p.prefix+fmt.Sprintf(format, args...), " "))
}

func (p *printer) check(c attest.Check, policyFile string) {
	text := c.Text
	if text == "" {
		text = c.ID
	}
	switch c.Status {
	case attest.StatusPass:
		p.line("  ok    %-44s %s", printable(text), printable(c.Got))
		return
	case attest.StatusWarn:
		p.line("  warn  %-44s %s", printable(text), printable(c.Got))
		if c.Want != "" {
			p.line("        want  %s", printable(c.Want))
		}
		return
	}
	where := string(c.Code)
	if c.Line > 0 && policyFile != "" {
		where += fmt.Sprintf("  %s:%d", policyFile, c.Line)
	}
	p.line("  FAIL  %-44s %s", printable(text), printable(where))
	if c.Got != "" {
		p.line("        got   %s", printable(c.Got))
	}
	if c.Want != "" {
		p.line("        want  %s", printable(c.Want))
	}
	if c.Nearest != "" {
		p.line("        near  %s", printable(c.Nearest))
	}
}

// printable keeps a peer from writing control sequences to somebody's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}
