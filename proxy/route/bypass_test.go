package route_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/route"
)

// respell answers a path that a server which decodes and cleans takes for path.
func respell(random *rand.Rand, path string) string {
	var out strings.Builder
	for i := range len(path) {
		c := path[i]
		if c == '/' {
			out.WriteByte('/')
			for random.IntN(4) == 0 {
				out.WriteString([]string{"/", "./", "x/../", "%2e/", "y/%2E./", "a/b/..//../", ".//"}[random.IntN(7)])
			}
			continue
		}
		switch random.IntN(4) {
		case 0:
			fmt.Fprintf(&out, "%%%02x", c)
		case 1:
			fmt.Fprintf(&out, "%%%02X", c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// No spelling of a path gets past the routes for it: it is matched by the same one, and forwarded in the same form, or
// refused.
func TestNoSpellingBypasses(t *testing.T) {
	table := compile(t, one(
		to("exact", route.RouteMatch{Path: "/admin/user@x;v=1"}),
		to("separated", route.RouteMatch{PathSeparatedPrefix: "/secret"}),
		to("prefix", route.RouteMatch{Prefix: "/pre-"}),
		to("regex", route.RouteMatch{SafeRegex: "/v[0-9]/(a|b)~"}),
		to("rest", route.RouteMatch{Prefix: "/"}),
	))
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range [][2]string{
		{"/admin/user@x;v=1", "exact"}, {"/secret", "separated"}, {"/secret/a/b", "separated"}, {"/pre-fix/!$&'()*+,;=:@", "prefix"}, {"/v1/b~", "regex"},
	} {
		for range 2000 {
			spelt := respell(random, c[0])
			r := get("h", spelt)
			d, err := table.Match(r, 0)
			if err != nil || d.Route() != c[1] || r.Path != c[0] {
				t.Fatalf("%q of %q: got %q, %q, %v", spelt, c[0], d.Route(), r.Path, err)
			}
		}
	}
	// What only some servers take for the path is refused.
	for _, p := range []string{"/x/..;/secret", "/x/..%2fsecret", `/x\..\secret`, "/x%5c..%5csecret", "/secret%00", "/secret%2f", "/%2fsecret", "/../secret", "/secret%0a", "/x/..%3b/secret"} {
		if d, err := table.Match(get("h", p), 0); err == nil {
			t.Errorf("%q: taken by %q", p, d.Route())
		}
	}
}
