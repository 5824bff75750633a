package control_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/resource"
)

var good = map[string]string{"groups.yaml": anyGroups, "policies/proxies.yaml": proxiesPolicy, "g/a.yaml": "cds c a", "README.md": "text", ".hidden": "x", "g/b.yaml~": "x"}

// Whatever is bad is named with its file, and its line where there is one.
func TestBadDirectory(t *testing.T) {
	for name, tc := range map[string]struct {
		change []string
		code   attest.Code
		where  string
	}{
		"no groups":              {[]string{"groups.yaml", ""}, attest.CodeConfigMissing, "groups.yaml"},
		"groups, syntax":         {[]string{"groups.yaml", "groups: ["}, attest.CodeConfigSyntax, "groups.yaml:"},
		"groups, unknown key":    {[]string{"groups.yaml", "groups:\n- {name: g, require: proxies, any: true, evil: 1}"}, attest.CodeConfigUnknownKey, "groups.yaml:2:"},
		"groups, none":           {[]string{"groups.yaml", "groups: []"}, attest.CodeConfigValue, "groups.yaml:1:"},
		"group without policy":   {[]string{"groups.yaml", "groups:\n- {name: g, any: true}"}, attest.CodeConfigMissing, "groups.yaml:2:"},
		"group without members":  {[]string{"groups.yaml", "groups:\n- {name: g, require: proxies}"}, attest.CodeConfigValue, "groups.yaml:2:"},
		"group for any and some": {[]string{"groups.yaml", "groups:\n- {name: g, require: proxies, any: true, names: [a]}"}, attest.CodeConfigValue, "groups.yaml:2:"},
		"group twice":            {[]string{"groups.yaml", "groups:\n- {name: g, require: proxies, any: true}\n- {name: g, require: proxies, any: true}"}, attest.CodeConfigValue, "groups.yaml:3:"},
		"group, reserved name":   {[]string{"groups.yaml", "groups:\n- {name: policies, require: proxies, any: true}"}, attest.CodeConfigValue, "groups.yaml:2:"},
		"group, path":            {[]string{"groups.yaml", "groups:\n- {name: ../g, require: proxies, any: true}"}, attest.CodeConfigValue, "groups.yaml:2:"},
		"group, bad digest":      {[]string{"groups.yaml", "groups:\n- {name: g, require: proxies, measurements: [zz]}"}, attest.CodeConfigValue, "groups.yaml:2:"},
		"group, bad name":        {[]string{"groups.yaml", "groups:\n- {name: g, require: proxies, names: ['a*b']}"}, attest.CodeConfigValue, "groups.yaml:2:"},
		"group, bad pattern":     {[]string{"groups.yaml", "groups:\n- {name: g, require: proxies, any: true, nodes: ['[']}"}, attest.CodeConfigValue, "groups.yaml:2:"},
		"local and attested":     {[]string{"groups.yaml", "groups:\n- {name: g, local: x, any: true}"}, attest.CodeConfigValue, "groups.yaml:2:"},
		"unknown policy":         {[]string{"groups.yaml", "groups:\n- {name: g, require: other, any: true}"}, attest.CodeConfigMissing, "groups.yaml:2:"},
		"policy, bad key":        {[]string{"policies/proxies.yaml", proxiesPolicy + "evil: 1\n"}, attest.CodeConfigUnknownKey, "policies/proxies.yaml:8:"},
		"policy, file missing":   {[]string{"policies/proxies.yaml", strings.Replace(proxiesPolicy, "measurement: any", "measurement: {file: none.json}", 1)}, attest.CodeConfigValue, "policies/proxies.yaml:5:"},
		"policy, file elsewhere": {[]string{"policies/proxies.yaml", strings.Replace(proxiesPolicy, "measurement: any", "measurement: {file: ../g/a.yaml}", 1)}, attest.CodeConfigValue, "policies/proxies.yaml:5:"},
		"policy, two sets":       {[]string{"policies/proxies.yaml", strings.Replace(proxiesPolicy, "measurement: any", "measurement: {file: r}", 1), "references/a/r", "x", "references/b/r", "x"}, attest.CodeConfigValue, "policies/proxies.yaml:5:"},
		"resource, syntax":       {[]string{"g/a.yaml", "cds c a\nnonsense"}, attest.CodeConfigSyntax, "g/a.yaml:2:1"},
		"resource twice":         {[]string{"g/b.yaml", "cds c b"}, attest.CodeConfigValue, "g/b.yaml"},
		"resource twice, shared": {[]string{"z.yaml", "cds c b"}, attest.CodeConfigValue, "z.yaml:1:1"},
		"a policy as a resource": {[]string{"g/b.yaml", "policy p x"}, attest.CodeConfigValue, "g/b.yaml"},
		"a name for all":         {[]string{"g/b.yaml", "cds * x"}, attest.CodeConfigValue, "g/b.yaml"},
		"an unknown folder":      {[]string{"other/b.yaml", "cds x x"}, attest.CodeConfigValue, "other/b.yaml"},
		"references, too deep":   {[]string{"references/a/b/c", "x"}, attest.CodeConfigValue, "references/a/b/c"},
		"references, no set":     {[]string{"references/a", "x"}, attest.CodeConfigValue, "references/a"},
	} {
		t.Run(name, func(t *testing.T) {
			p := at(t, good, control.Options{})
			before := p.Status()
			err := p.apply(with(good, tc.change...))
			var coded *attest.Error
			if !errors.As(err, &coded) || coded.Code != tc.code || !strings.HasPrefix(coded.Subject, tc.where) {
				t.Fatalf("got %v, want %s about %s", err, tc.code, tc.where)
			}
			after := p.Status()
			if after.Serial != before.Serial || len(after.Problem) == 0 || after.Problem[0].Code != tc.code || p.Problem() == nil {
				t.Errorf("status %+v", after)
			}
			p.mustApply(good)
			if after := p.Status(); after.Serial != before.Serial || len(after.Problem) != 0 {
				t.Errorf("status %+v", after)
			}
		})
	}
}

// Several are wrong, and all are named.
func TestAllProblems(t *testing.T) {
	_, err := control.Validate(toFiles(with(good, "g/a.yaml", "x", "g/c.yaml", "y", "policies/p.yaml", "z: 1")), decode, nil)
	for _, want := range []string{"g/a.yaml:1", "g/c.yaml:1", "policies/p.yaml:1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	s, err := control.Validate(toFiles(good), decode, func(group string, all []resource.Resource) []control.Finding {
		if group != "g" || len(all) != 2 {
			t.Errorf("%s gets %v", group, all)
		}
		return nil
	})
	if err != nil || !slices.Equal(s.Groups, []string{"g"}) || !slices.Equal(s.Policies, []string{"proxies"}) || s.Resources[resource.Cluster] != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	bad := func(_ string, all []resource.Resource) []control.Finding {
		return []control.Finding{{Type: resource.Cluster, Name: "c", Err: &attest.Error{Code: attest.CodeConfigValue, Subject: "lb_policy"}}}
	}
	var coded *attest.Error
	if _, err := control.Validate(toFiles(good), decode, bad); !errors.As(err, &coded) || coded.Subject != "g/a.yaml:1:1: lb_policy" {
		t.Errorf("got %v", err)
	}
	if _, err := control.Validate(toFiles(with(good, "groups.yaml", strings.Replace(anyGroups, "any: true", "any: true, stock: true", 1))), decode, bad); err != nil {
		t.Errorf("stock proxies: %v", err)
	}
}

// Files that policies name go with them, or with a set of reference values that they refer to.
func TestReferences(t *testing.T) {
	manifest := func(b string) string {
		return `[{"name": "proxy", "version": "1", "registers": {"launch": "` + strings.Repeat(b, 48) + `"}}]`
	}
	policy := strings.Replace(proxiesPolicy, "measurement: any", "measurement: {file: r.json}", 1)
	files := with(good, "policies/proxies.yaml", policy, "references/vendor/r.json", manifest("11"), "policies/other.policy.yaml", policy)
	p := at(t, files, control.Options{})
	proxy := amd("genoa")
	proxy.Measured = map[string]attest.HexBytes{"launch": []byte(strings.Repeat("\x11", 48))}
	d := p.delta(p.attest(identity(t, proxy)))
	d.subscribe(resource.ReferenceValues, "vendor")
	m := d.next()
	r, err := api.DecodeReferences(m.TypeUrl, m.Resources[0].Resource.Value)
	if err != nil || r.Name != "vendor" || string(r.Files["r.json"]) != manifest("11") || r.Serial != number(t, m.Resources[0].Version) {
		t.Errorf("got %+v, %v", r, err)
	}
	d.ack(m)
	d.subscribe(resource.AttestationPolicy, "proxies", "other")
	m = d.next()
	for _, one := range m.Resources {
		if pol, err := api.DecodePolicy(m.TypeUrl, one.Resource.Value); err != nil || !slices.Equal(pol.References, []string{"vendor"}) || len(pol.Files) != 0 {
			t.Errorf("got %+v, %v", pol, err)
		}
	}
	d.ack(m)
	// Beside it counts first, and goes with it.
	p.mustApply(with(files, "policies/r.json", manifest("11")))
	m = d.next()
	if pol, err := api.DecodePolicy(m.TypeUrl, m.Resources[0].Resource.Value); err != nil || len(m.Resources) != 2 || len(pol.References) != 0 || string(pol.Files["r.json"]) != manifest("11") {
		t.Errorf("got %+v, %v", pol, err)
	}
	// Other reference values are another policy: the proxy is refused by it.
	d.ack(m)
	p.mustApply(with(files, "policies/r.json", manifest("22")))
	if err := d.end(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
}

// The directory is read within itself alone.
func TestEscape(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret.yaml")
	for _, err := range []error{
		os.WriteFile(outside, []byte("cds secret x"), 0o600), os.WriteFile(filepath.Join(dir, "groups.yaml"), []byte(localGroups), 0o600),
		os.Symlink(outside, filepath.Join(dir, "link.yaml")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if files, err := control.ReadDirectory(dir); err == nil {
		t.Errorf("read %v", slices.Collect(maps.Keys(files)))
	}
	if _, err := control.ReadDirectory(filepath.Join(dir, "none")); attest.CodeOf(err) != attest.CodeConfigMissing {
		t.Errorf("got %v", err)
	}
}

// A volume of Kubernetes: every file is a link into a directory that another link leads to.
func TestConfigMap(t *testing.T) {
	dir := t.TempDir()
	turn := func(version, text string) {
		t.Helper()
		data := filepath.Join(dir, "..v"+version)
		for _, err := range []error{
			os.Mkdir(data, 0o755), os.WriteFile(filepath.Join(data, "groups.yaml"), []byte(localGroups), 0o600), os.WriteFile(filepath.Join(data, "a.yaml"), []byte(text), 0o600),
			os.Symlink("..v"+version, filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	turn("1", "cds c a")
	for _, name := range []string{"groups.yaml", "a.yaml"} {
		if err := os.Symlink("..data/"+name, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := control.ReadDirectory(dir)
	if err != nil || len(files) != 2 || string(files["a.yaml"]) != "cds c a" {
		t.Fatalf("%v, %v", files, err)
	}
	turn("2", "cds c b")
	if again, err := control.ReadDirectory(dir); err != nil || string(again["a.yaml"]) != "cds c b" || again.Digest() == files.Digest() {
		t.Errorf("%v, %v", again, err)
	}
}

// The watcher takes what is there without being told.
func TestWatch(t *testing.T) {
	p := at(t, base, control.Options{Poll: 1e6})
	d := p.delta(p.connect())
	d.subscribe(resource.Cluster)
	d.want("Cluster c1=a")
	for i := range 20 {
		text := fmt.Sprintf("cds c1 v%d", i)
		if i%2 == 0 {
			p.write(with(base, "g/a.yaml", text))
		} else if err := os.WriteFile(filepath.Join(p.dir, "g/a.yaml"), []byte(text), 0o600); err != nil { // in place
			t.Fatal(err)
		}
		d.want(fmt.Sprintf("Cluster c1=v%d", i))
	}
	p.write(with(base, "g/a.yaml", "nonsense"))
	until(t, "problem", func() bool { return p.Problem() != nil })
	p.write(with(base, "g/a.yaml", "cds c1 w"))
	d.want("Cluster c1=w")
	until(t, "no problem", func() bool { return p.Problem() == nil })
	if err := os.Remove(p.dir); err != nil {
		t.Fatal(err)
	}
	until(t, "problem", func() bool { return p.Problem() != nil })
	d.quiet("x")
	p.write(with(base, "g/a.yaml", "cds c1 w"))
	until(t, "no problem", func() bool { return p.Problem() == nil })
}

func FuzzDirectory(f *testing.F) {
	f.Add("groups.yaml", []byte(localGroups), "g/a.yaml", []byte("cds c a"))
	f.Add("groups.yaml", []byte(anyGroups), "policies/proxies.yaml", []byte(proxiesPolicy))
	f.Add("groups.yaml", []byte(twoGroups), "references/a/b", []byte("x"))
	f.Add("policies/p.yaml", []byte(denyMilan), "x.policy.yaml", []byte(denyMilan))
	f.Fuzz(func(t *testing.T, n1 string, b1 []byte, n2 string, b2 []byte) {
		if n1 == "" || n2 == "" {
			return
		}
		files := control.Files{n1: b1, n2: b2}
		s, err := control.Validate(files, decode, nil)
		if (s == nil) == (err == nil) {
			t.Fatalf("%v and %v", s, err)
		}
		if s != nil && len(s.Groups) == 0 {
			t.Error("good, and without groups")
		}
		var coded *attest.Error
		if err != nil && !errors.As(err, &coded) {
			t.Errorf("%v has no code", err)
		}
	})
}
