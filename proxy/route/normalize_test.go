package route_test

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/route"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/", "/a/b": "/a/b", "/a/": "/a/", "*": "*", "/a?b=c/../d//%2f": "/a?b=c/../d//%2f", "/?": "/?",
		"/%61dmin": "/admin", "/%7Euser": "/~user", "/a%20b": "/a%20b", "/%e2%82%ac": "/%E2%82%AC", "/\u20ac": "/%E2%82%AC",
		"/%40x%3A%2B%3b": "/@x:+;", "/<a>": "/%3Ca%3E", "/a|b": "/a%7Cb", "/%25": "/%25", "/%252e%252e/": "/%252e%252e/", "/%3f": "/%3F", "/%23": "/%23",
		"/a/./b": "/a/b", "/a/../b": "/b", "/a/b/..": "/a/", "/a/b/../": "/a/", "/.": "/", "/a/.": "/a/", "/a/..": "/", "/a/%2e%2E/b": "/b", "/a/.%2e/b": "/b",
		"//": "/", "///a//b//": "/a/b/", "//../a": "", "/a//../b": "/b", "/...": "/...", "/.a": "/.a", "/..a": "/..a", "/.well-known/x": "/.well-known/x",
		"/a;x=1/b": "/a;x=1/b", "/a;..": "/a;..", "/a;../b": "/a;../b",
		"/%e2": "/%E2", "/%2a": "/*", "/%E2%8f": "/%E2%8F", "/a/../%23": "/%23", "/a/../%20": "/%20", "/..x2Fy": "/..x2Fy", "/..%3Fx": "/..%3Fx", "/..%20x": "/..%20x", "/..%3Cx": "/..%3Cx", "/..%5Ex": "/..%5Ex",
		// Refused.
		"": "", "a": "", "?": "", "/..": "", "/../a": "", "/a/../..": "", "/%2e%2e": "", "**": "", "*?": "",
		"/a%2fb": "", "/a%2Fb": "", "/a%5cb": "", `/a\b`: "", "/a%00": "", "/%0d%0a": "", "/%7f": "", "/%1f": "", "/a\x00": "", "/a b": "", "/a#b": "", "/a\t": "", "/a\x7f": "",
		"/%G0": "", "/%0G": "", "/%8G": "", "/%!1/..": "", "/%/1": "", "/%:1/..": "", "/%5C": "", "/%7F": "", "/%1F": "", "/a?\x7f": "", "/a?\x00": "",
		"/%": "", "/%2": "", "/%zz": "", "/%a": "", "/%4g": "", "/a?b c": "", "/a?b#c": "", "/a?\n": "",
		"/..;/a": "", "/a/..;x/b": "", "/a/.;/b": "", "/a/..%3b/b": "", "/a/%2e%2e;": "",
	} {
		got, err := route.Normalize(in, false)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"/a%2fb": "/a%2Fb", "/a%5Cb": "/a%5Cb", "/@s%2Fname": "/@s%2Fname", "/a%2F%2Fb": "/a%2F%2Fb",
		"/a%2f..": "", "/..%2fa": "", "/a%5c..%5cb": "", "/a%2f.": "", "/a%2f%2e%2e/b": "", "/a;x%2f..": "", "/a%2f..;b": "", `/a\b`: "", "/%00": "",
	} {
		if got, err := route.Normalize(in, true); got != want || (err == nil) != (want != "") {
			t.Errorf("kept %q: got %q, %v, want %q", in, got, err, want)
		}
	}
}

// FuzzNormalize: what is canonical stays so, and means to a server that decodes and cleans what the input meant.
func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"/a/../b?x", "/%61%2F..", "//a;../.", "/\xff%e2", "/a%5c..;/%25", "*"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, in string, keep bool) {
		out, err := route.Normalize(in, keep)
		if err != nil {
			return
		}
		if again, err := route.Normalize(out, keep); again != out || err != nil {
			t.Fatalf("%q became %q, and then %q, %v", in, out, again, err)
		}
		if out == "*" {
			return
		}
		before, queryBefore, _ := strings.Cut(in, "?")
		after, queryAfter, _ := strings.Cut(out, "?")
		if queryBefore != queryAfter {
			t.Fatalf("%q became %q", in, out)
		}
		for i := range len(after) {
			if c := after[i]; c <= ' ' || c >= 0x7f || c == '\\' {
				t.Fatalf("%q has %q", out, c)
			}
		}
		raw, err := url.PathUnescape(before)
		if err != nil {
			t.Fatalf("%q is no path, but became %q", before, out)
		}
		got, err := url.PathUnescape(after)
		if err != nil {
			t.Fatal(err)
		}
		if !keep && (strings.Contains(got, "//") || path.Clean(raw) != strings.TrimSuffix(got, "/") && path.Clean(raw) != got) {
			t.Fatalf("%q means %q, but %q means %q", before, path.Clean(raw), after, got)
		}
		if strings.Contains(got, `\`) && !keep {
			t.Fatalf("%q", got)
		}
		for segment := range strings.SplitSeq(strings.ReplaceAll(got, `\`, "/"), "/") {
			if segment, _, _ = strings.Cut(segment, ";"); segment == "." || segment == ".." {
				t.Fatalf("%q has a dot segment", out)
			}
		}
	})
}
