package main

import (
	"bytes"
	"log/slog"
	"testing"
)

// An error is one line: a trace of the stack tells an operator nothing, and buries the line that does.
func TestErrorIsOneLine(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var b bytes.Buffer
		newLogger(&b, asJSON, slog.LevelInfo).Error("no answer", "code", "J104")
		if bytes.Count(b.Bytes(), []byte("\n")) != 1 || bytes.Contains(b.Bytes(), []byte(".go:")) {
			t.Errorf("got %s", b.Bytes())
		}
	}
}
