// Command bench runs every BenchmarkWarm below the packages named and prints each warm verification beside the bare
// signature verifications that it can't avoid, with their ratio. It fails when a ratio exceeds its goal.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// line is one comparison, as test/bench reports it.
type line struct {
	tee, bare string
	metrics   map[string]float64
}

func main() {
	log.SetFlags(0)
	args := append([]string{"test", "-run", "^$", "-bench", "^BenchmarkWarm$", "-benchtime", "1x"}, os.Args[1:]...)
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		log.Fatalf("%s\nbench: %v", out, err)
	}
	slow := false
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		l, ok := parse(s.Text())
		if !ok {
			continue
		}
		ratio, goal := l.metrics["ratio"], l.metrics["goal"]
		verdict := ""
		if ratio > goal {
			slow, verdict = true, "  TOO SLOW"
		}
		fmt.Printf("%-14s warm %8s  %-22s %8s  ratio %.2f (goal %.2f)%s\n", l.tee, duration(l.metrics["warm-ns"]), l.bare, duration(l.metrics["bare-ns"]), ratio, goal, verdict)
	}
	if slow {
		os.Exit(1)
	}
}

// parse reads a line of Go's benchmark format.
func parse(text string) (l line, ok bool) {
	fields := strings.Fields(text)
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "BenchmarkWarm/") {
		return l, false
	}
	name := strings.TrimPrefix(fields[0], "BenchmarkWarm/")
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		if _, err := strconv.Atoi(name[i+1:]); err == nil {
			name = name[:i] // the number of processors
		}
	}
	l.tee, l.bare, _ = strings.Cut(name, "/")
	l.bare = strings.ReplaceAll(l.bare, "_", " ")
	l.metrics = map[string]float64{}
	for i := 2; i+1 < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return l, false
		}
		l.metrics[fields[i+1]] = v
	}
	return l, l.metrics["goal"] > 0
}

func duration(ns float64) string {
	d := time.Duration(ns)
	if d < time.Millisecond {
		return d.Round(time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
