package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// binary is one package's tests.
type binary struct {
	path, dir string
	flags     []string // of its own
}

// test is one of its functions. It runs alone.
type test struct {
	binary
	name    string
	took    time.Duration
	reaches map[int]bool // the mutants
	notices atomic.Int64 // so far
}

type runner struct {
	*options
	tmp      string
	binaries []binary
	tests    []*test
	limit    time.Duration // of one run
}

// build compiles the tests of the packages with the switches in place.
func (r *runner) build(s *schema, packages []string) error {
	replace := map[string]string{}
	for path, text := range s.files {
		copied := filepath.Join(r.tmp, fmt.Sprintf("%d-%s", len(replace), filepath.Base(path)))
		if err := os.WriteFile(copied, text, 0o600); err != nil {
			return err
		}
		replace[path] = copied
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	file := filepath.Join(r.tmp, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return err
	}
	listed, err := listPackages(packages)
	if err != nil {
		return err
	}
	for i, p := range listed {
		b := binary{path: filepath.Join(r.tmp, fmt.Sprintf("%d.test", i)), dir: p.Dir}
		cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", file, "-o", b.path, p.ImportPath)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("the switches do not compile: %w\n%s", err, out)
		}
		if _, err := os.Stat(b.path); err != nil {
			continue // a package without tests
		}
		// Of a test that fails for a removal nothing is to be kept in the tree.
		if rapid := "-rapid.nofailfile"; exec.Command(b.path, rapid, "-test.list", "^$").Run() == nil {
			b.flags = append(b.flags, rapid)
		}
		r.binaries = append(r.binaries, b)
	}
	return nil
}

// run runs one test with one check removed; 0: none.
func (r *runner) run(t *test, id int, hits string) error {
	ctx, cancel := context.WithTimeout(context.Background(), r.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.path, append(t.flags[:len(t.flags):len(t.flags)], "-test.short", "-test.failfast", "-test.timeout", r.limit.String(), "-test.run", "^"+t.name+"$")...)
	cmd.Dir = t.dir
	cmd.Env = append(os.Environ(), "MUTATION_ACTIVE="+strconv.Itoa(id), "MUTATION_HITS="+hits, "JURAT_TEST_KEYS="+r.tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", t.name, err, out)
	}
	return nil
}

// baseline shows that the tests pass with all checks in place, and finds which checks each reaches.
func (r *runner) baseline(mutants []*mutant) error {
	for _, b := range r.binaries {
		cmd := exec.Command(b.path, "-test.list", "^(Test|Fuzz|Example)")
		cmd.Dir = b.dir
		out, err := cmd.Output()
		if err != nil {
			return err
		}
		for name := range strings.Lines(string(out)) {
			if name = strings.TrimSpace(name); name != "" {
				r.tests = append(r.tests, &test{binary: b, name: name, reaches: map[int]bool{}})
			}
		}
	}
	reached := map[int]bool{}
	for i, t := range r.tests {
		hits := filepath.Join(r.tmp, fmt.Sprintf("hits-%d", i))
		start := time.Now()
		if err := r.run(t, 0, hits); err != nil {
			return fmt.Errorf("the tests fail with nothing removed: %w", err)
		}
		t.took = time.Since(start)
		raw, err := os.ReadFile(hits)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for line := range strings.Lines(string(raw)) {
			if id, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
				t.reaches[id], reached[id] = true, true
			}
		}
		// What takes much longer than that never ends.
		r.limit = max(r.limit, min(r.timeout, 20*time.Second+20*t.took))
	}
	for _, m := range mutants {
		m.reached = reached[m.id]
	}
	return nil
}

// noticed tells whether a test fails without the check. Those that notice most in the least time come first.
func (r *runner) noticed(m *mutant) bool {
	var candidates []*test
	for _, t := range r.tests {
		if t.reaches[m.id] {
			candidates = append(candidates, t)
		}
	}
	worth := func(t *test) float64 { return float64(1+t.notices.Load()) / float64(t.took+20*time.Millisecond) }
	slices.SortFunc(candidates, func(a, b *test) int { return cmp.Compare(worth(b), worth(a)) })
	for _, t := range candidates {
		if r.run(t, m.id, "") != nil {
			t.notices.Add(1)
			return true
		}
	}
	return false
}

func (r *runner) all(mutants []*mutant) {
	work := make(chan *mutant)
	var wg sync.WaitGroup
	for range r.parallel {
		wg.Go(func() {
			for m := range work {
				m.killed = r.noticed(m)
				if r.verbose {
					fmt.Printf("%s: noticed %v\n", m, m.killed)
				}
			}
		})
	}
	for _, m := range mutants {
		if m.reached {
			work <- m
		}
	}
	close(work)
	wg.Wait()
}
