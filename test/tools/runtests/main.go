// Command runtests runs "go test" in the given module directories, shows what failed whole, and counts what was skipped
// with its reason. With JURAT_NO_SKIP=1 a skip is a failure, but for evidence of real hardware where JURAT_VECTORS is
// "absent": no set-up can fetch that.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
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
}

func main() {
	log.SetFlags(0)
	args := []string{"test", "-json", "-timeout", "15m"}
	if _, err := exec.LookPath("cc"); err == nil {
		args = append(args, "-race")
	} else {
		fmt.Println("test: no C compiler: without the race detector")
	}
	t := &totals{output: map[string][]string{}}
	for _, dir := range os.Args[1:] {
		if err := t.run(dir, append(args, "./...")); err != nil {
			log.Fatal(err)
		}
	}
	if !t.report() {
		os.Exit(1)
	}
}

func (t *totals) run(dir string, args []string) error {
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
		t.take(e)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil && t.fail == 0 {
		t.fail++ // a package that did not build, or a crash outside of a test
	}
	return nil
}

func (t *totals) take(e event) {
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
		fmt.Print(strings.Join(output, ""))
		t.fail++
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

// reason is the first line that a test said of its own.
func reason(output []string) string {
	for _, line := range output {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason given"
}

func (t *totals) report() bool {
	forbidden := 0
	for _, s := range t.skips {
		fmt.Println("skip", s)
		if !(strings.Contains(s, "vectors absent") && os.Getenv("JURAT_VECTORS") == "absent") {
			forbidden++
		}
	}
	fmt.Printf("\npassed %d, failed %d, skipped %d\n", t.pass, t.fail, len(t.skips))
	if forbidden > 0 && os.Getenv("JURAT_NO_SKIP") == "1" {
		fmt.Println("skips are forbidden here")
		return false
	}
	return t.fail == 0
}
