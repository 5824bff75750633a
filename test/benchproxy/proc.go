package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of times in /proc, on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// stat is what /proc/PID/stat says of a process.
type stat struct {
	group int
	cpu   time.Duration // user and system
}

func parseStat(raw string) (s stat, err error) {
	// The name, in parentheses, may contain anything.
	_, rest, ok := cutLast(raw, ")")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return s, fmt.Errorf("not the stat of a process: %.60q", raw)
	}
	var user, system int64
	for at, to := range map[int]*int64{11: &user, 12: &system} {
		if *to, err = strconv.ParseInt(f[at], 10, 64); err != nil {
			return s, err
		}
	}
	s.cpu = time.Duration(user+system) * tick
	s.group, err = strconv.Atoi(f[2])
	return s, err
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// group is all processes of a peer: it starts in a process group of its own, and its workers stay there.
type group int

func (g group) stats() map[int]stat {
	all := map[int]stat{}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if s, err := parseStat(string(raw)); err == nil && s.group == int(g) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			all[pid] = s
		}
	}
	return all
}

// cpu is what all of them have used.
func (g group) cpu() (sum time.Duration) {
	for _, s := range g.stats() {
		sum += s.cpu
	}
	return sum
}

// memory is their RSS and PSS in KB.
func (g group) memory() (rss, pss float64, err error) {
	for pid := range g.stats() {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, 0, err
		}
		r, p, err := parseRollup(raw)
		if err != nil {
			return 0, 0, err
		}
		rss, pss = rss+r, pss+p
	}
	if rss == 0 {
		return 0, 0, errors.New("no process")
	}
	return rss, pss, nil
}

func parseRollup(raw []byte) (rss, pss float64, err error) {
	for line := range bytes.Lines(raw) {
		f := bytes.Fields(line)
		if len(f) != 3 {
			continue
		}
		switch string(f[0]) {
		case "Rss:":
			rss, err = strconv.ParseFloat(string(f[1]), 64)
		case "Pss:":
			pss, err = strconv.ParseFloat(string(f[1]), 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	if rss == 0 || pss == 0 {
		return 0, 0, errors.New("no Rss or no Pss in smaps_rollup")
	}
	return rss, pss, nil
}

// cores are those that we may run on.
func cores() (all []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all, nil
}

// stayOn keeps this process, and whatever it starts, on a core.
func stayOn(core int) error {
	var set unix.CPUSet
	set.Set(core)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// manyFiles raises the limit of open files, also for whatever we start, and answers it.
func manyFiles() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	l.Cur = min(l.Max, 1<<16)
	return l.Cur, unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}

// machineCPU is what all processes together have used of these cores so far.
func machineCPU(cores []int) time.Duration {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	var sum time.Duration
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) < 9 {
			continue
		}
		core, err := strconv.Atoi(strings.TrimPrefix(f[0], "cpu"))
		if err != nil || !slices.Contains(cores, core) {
			continue
		}
		for i := 1; i < 9; i++ { // user, nice, system, idle, iowait, irq, softirq, steal
			if n, err := strconv.ParseInt(f[i], 10, 64); err == nil && i != 4 && i != 5 {
				sum += time.Duration(n) * tick
			}
		}
	}
	return sum
}

// ourCPU is what this process has used, and those that it started and that have ended.
func ourCPU() (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
