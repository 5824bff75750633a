// Command runtests runs "go test" in the given module directories, shows what failed whole, and counts what was skipped
// with its reason. With JURAT_NO_SKIP=1 a skip is a failure, but for evidence of real hardware where JURAT_VECTORS is
// "absent": no set-up can fetch that.
//
// One or two of thousands of tests that fail are run once more, by themselves: those that pass then are named as unsteady, and are no
// failure. Three are, and so is a data race, a panic, a leak, and what does not build.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type totals struct {
	pass, fail int
	skips      []string
	output     map[string][]string // of tests that have not passed
	failed     map[suspect]bool
	sure       bool // something has failed that does not pass by being run again
}

// suspect is a test, without its parts, that has failed.
type suspect struct{ dir, pkg, test string }

// mostUnsteady is how many tests may fail once.
const mostUnsteady = 2

func main() {
	log.SetFlags(0)
	args := []string{"test", "-json", "-timeout", "15m"}
	if _, err := exec.LookPath("cc"); err == nil {
		args = append(args, "-race")
	} else {
		fmt.Println("test: no C compiler: without the race detector")
	}
	t := &totals{output: map[string][]string{}, failed: map[suspect]bool{}}
	for _, dir := range os.Args[1:] {
		if err := t.run(dir, append(args, "./...")); err != nil {
			log.Fatal(err)
		}
	}
	unsteady, ok := t.again(args)
	if !t.report(unsteady, ok) {
		os.Exit(1)
	}
}

// again runs what has failed once more. It answers how many tests passed then, and whether none is left.
func (t *totals) again(args []string) (unsteady int, ok bool) {
	if t.fail == 0 || t.sure || len(t.failed) > mostUnsteady {
		return 0, t.fail == 0
	}
	for s := range t.failed {
		fmt.Println("once more:", s.pkg, s.test)
		second := &totals{output: map[string][]string{}, failed: map[suspect]bool{}}
		if err := second.run(s.dir, append(slices.Clone(args), "-count=1", "-run", "^"+s.test+"$", s.pkg)); err != nil || second.fail > 0 || second.pass == 0 {
			return 0, false
		}
		fmt.Println("unsteady:", s.pkg, s.test)
	}
	return len(t.failed), true
}

func (t *totals) run(dir string, args []string) error {
	before := t.fail
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		t.take(dir, e)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil && t.fail == before {
		t.fail, t.sure = t.fail+1, true // a package that did not build, or a crash outside of a test
	}
	return nil
}

func (t *totals) take(dir string, e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		t.output[key] = append(t.output[key], e.Output)
		return
	case "pass", "fail", "skip", "build-fail":
	default:
		return
	}
	output := t.output[key]
	delete(t.output, key)
	switch {
	case e.Action == "fail" || e.Action == "build-fail":
		text := strings.Join(output, "")
		fmt.Print(text)
		t.fail++
		t.suspect(dir, e, text)
	case e.Test == "":
		if e.Action == "pass" {
			fmt.Printf("ok   %-55s %6.1fs\n", e.Package, e.Elapsed)
		}
	case e.Action == "skip":
		t.skips = append(t.skips, fmt.Sprintf("%s: %s", e.Test, reason(output)))
	default:
		t.pass++
	}
}

// suspect takes note of what has failed.
func (t *totals) suspect(dir string, e event, text string) {
	for _, sign := range []string{"panic:", "fatal error:", "unexpected goroutines", "test timed out", "DATA RACE", "race detected"} {
		t.sure = t.sure || strings.Contains(text, sign)
	}
	if e.Test != "" {
		name, _, _ := strings.Cut(e.Test, "/")
		t.failed[suspect{dir, e.Package, name}] = true
		return
	}
	for s := range t.failed {
		if s.pkg == e.Package {
			return
		}
	}
	t.sure = true // no test of it has
}

// reason is the first line that a test said of its own.
func reason(output []string) string {
	for _, line := range output {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason given"
}

func (t *totals) report(unsteady int, ok bool) bool {
	forbidden := 0
	for _, s := range t.skips {
		fmt.Println("skip", s)
		if !(strings.Contains(s, "vectors absent") && os.Getenv("JURAT_VECTORS") == "absent") {
			forbidden++
		}
	}
	if ok {
		t.fail = 0
	}
	fmt.Printf("\npassed %d, failed %d, skipped %d, unsteady %d\n", t.pass, t.fail, len(t.skips), unsteady)
	if forbidden > 0 && os.Getenv("JURAT_NO_SKIP") == "1" {
		fmt.Println("skips are forbidden here")
		return false
	}
	return ok
}
