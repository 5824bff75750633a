// Command mutation removes the checks of Go packages one by one and tells which removals no test notices.
//
//	mutation [flags] PACKAGE...
//
// Every check of a package is compiled with a switch beside it, all in one test binary; each run of the tests then removes
// one. What is removed:
//
//   - the condition of an if or of a case that refuses (returns an error or false, continues, calls something that fails):
//     it never holds; of another one: it always holds, or never;
//   - one operand of && or ||;
//   - the error that a function or a case of a switch over values ends in: none is returned;
//   - the outcome of a predicate: it is always true, or always false;
//   - a call of the package's own functions whose result nobody takes.
//
// The tests that reach the check run with -short, one by one until one fails. A removal that no test notices is a survivor, and the exit code is 1. Survivors
// that change nothing are listed in a file with a reason each. Negating a comparison is not tried: whatever notices a
// check that never holds notices that as well.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

type options struct {
	shard, shards int
	parallel      int
	timeout       time.Duration
	only          *regexp.Regexp
	with          []string
	list, verbose bool
	root          string
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("mutation: ")
	var o options
	shard := flag.String("shard", "1/1", "run the `i/n`th part")
	only := flag.String("run", "", "only mutants whose name (file:line func kind text) matches `regexp`")
	with := flag.String("with", "", "comma-separated `packages` whose tests count as well")
	allowed := flag.String("allow", "", "`file` of survivors that change nothing, with reasons")
	flag.IntVar(&o.parallel, "p", runtime.NumCPU(), "runs at a time")
	flag.DurationVar(&o.timeout, "timeout", 5*time.Minute, "for one run at most; less where the tests are fast")
	flag.BoolVar(&o.list, "list", false, "list the mutants and stop")
	flag.BoolVar(&o.verbose, "v", false, "print every mutant")
	flag.Parse()
	if _, err := fmt.Sscanf(*shard, "%d/%d", &o.shard, &o.shards); err != nil || o.shard < 1 || o.shard > o.shards {
		log.Fatalf("-shard %q is not i/n", *shard)
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		log.Fatal(err)
	}
	if *with != "" {
		o.with = strings.Split(*with, ",")
	}
	if o.root, err = os.Getwd(); err != nil {
		log.Fatal(err)
	}
	exceptions, err := readAllowed(*allowed)
	if err != nil {
		log.Fatal(err)
	}
	packages, err := listPackages(flag.Args())
	if err != nil {
		log.Fatal(err)
	}
	ok := true
	for _, p := range packages {
		good, err := o.mutate(p, exceptions)
		if err != nil {
			log.Fatal(err)
		}
		ok = ok && good
	}
	if o.shards == 1 && *only == "" && !o.list {
		for _, e := range exceptions {
			if e.concerns(o.root, packages) && !e.used {
				fmt.Printf("obsolete: %s:%d: nothing survives there\n", *allowed, e.line)
				ok = false
			}
		}
	}
	if !ok {
		os.Exit(1)
	}
}

type pkg struct {
	Dir, ImportPath, Name string
	GoFiles               []string
}

func listPackages(patterns []string) (all []pkg, err error) {
	cmd := exec.Command("go", append([]string{"list", "-json=Dir,ImportPath,Name,GoFiles"}, patterns...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// mutate tries all mutants of one package. It answers false when one survives that may not.
func (o *options) mutate(p pkg, exceptions []*exception) (bool, error) {
	s, err := instrument(p, o.root)
	if err != nil {
		return false, err
	}
	var chosen []*mutant
	for i, m := range s.mutants {
		if i%o.shards == o.shard-1 && o.only.MatchString(m.String()) {
			chosen = append(chosen, m)
		}
	}
	if o.list {
		for _, m := range chosen {
			fmt.Println(m)
		}
		return true, nil
	}
	start := time.Now()
	tmp, err := os.MkdirTemp("", "mutation-*")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	chosen = slices.DeleteFunc(chosen, func(m *mutant) bool {
		e := find(exceptions, m)
		if e == nil || e.kind != anything {
			return false
		}
		e.used = true
		return true
	})
	r := &runner{options: o, tmp: tmp, limit: time.Minute}
	if err := r.build(s, append([]string{p.ImportPath}, o.with...)); err != nil {
		return false, err
	}
	if err := r.baseline(chosen); err != nil {
		return false, err
	}
	r.all(chosen)
	killed, allowed, survived := 0, 0, 0
	for _, m := range chosen {
		e := find(exceptions, m)
		switch {
		case m.killed:
			killed++
		case e != nil:
			e.used = true
			allowed++
		default:
			survived++
			why := "survives"
			if !m.reached {
				why = "never reached"
			}
			fmt.Printf("%s: %s\n", m, why)
		}
	}
	fmt.Printf("%s: %d mutants, %d noticed, %d change nothing, %d survive (%s)\n", p.ImportPath, len(chosen), killed, allowed, survived, time.Since(start).Round(time.Second))
	return survived == 0, nil
}

// relative names a file from the root of the module.
func relative(root, file string) string {
	if rel, err := filepath.Rel(root, file); err == nil {
		return filepath.ToSlash(rel)
	}
	return file
}
