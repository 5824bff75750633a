package main

import (
	"fmt"
	"os"
	"path"
	"strings"
)

// exception is a mutant that may survive, because it changes nothing that anybody could notice.
type exception struct {
	file, function, kind, text, reason string
	line                               int // of the list
	used                               bool
}

// anything stands for every kind and text: in a function that makes text, which decides nothing.
const anything = "*"

// readAllowed reads lines of "file | function | kind | text | reason". A line that begins with # is a comment.
func readAllowed(name string) (all []*exception, err error) {
	if name == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, " | ")
		if len(fields) != 5 || fields[4] == "" {
			return nil, fmt.Errorf("%s:%d: want file | function | kind | text | reason", name, n)
		}
		all = append(all, &exception{file: fields[0], function: fields[1], kind: fields[2], text: fields[3], reason: fields[4], line: n})
	}
	return all, nil
}

func find(all []*exception, m *mutant) *exception {
	for _, e := range all {
		if e.file == m.file && e.function == m.function && (e.kind == anything || e.kind == m.kind && e.text == m.text) {
			return e
		}
	}
	return nil
}

// concerns tells whether the exception is about a file of one of the packages.
func (e *exception) concerns(root string, packages []pkg) bool {
	for _, p := range packages {
		if relative(root, p.Dir) == path.Dir(e.file) {
			return true
		}
	}
	return false
}
