package attest

import (
	"errors"
	"fmt"
	"strings"
)

// Code is a stable identifier of one kind of failure, such as "J502". The table is codes.yaml.
type Code string

type codeInfo struct {
	exit          int
	title, remedy string
}

// Title says in a few words what the code means; empty for an unknown code.
func (c Code) Title() string { return codeTable[c].title }

// Remedy says what to do next; empty for an unknown code.
func (c Code) Remedy() string { return codeTable[c].remedy }

// Exit is the process exit code that goes with c: 1 for a code that is not in the table.
func (c Code) Exit() int {
	if info, ok := codeTable[c]; ok {
		return info.exit
	}
	return 1
}

// Undecidable reports whether c means that no verdict could be reached, as opposed to a refusal.
func (c Code) Undecidable() bool { return c.Exit() == 7 }

// Codes lists every code of the table, in no particular order.
func Codes() []Code {
	all := make([]Code, 0, len(codeTable))
	for c := range codeTable {
		all = append(all, c)
	}
	return all
}

// Error is a failure with a stable code. Got and Want are what was found and what was expected, Check the identifier of
// the check that failed (for example "authenticity.signature"), and Subject whom it concerns (a peer, a file).
type Error struct {
	Code      Code
	Check     string
	Subject   string
	Got, Want string
	Hint      string // replaces the table's remedy when set
	Err       error
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Subject != "" {
		b.WriteString(e.Subject + ": ")
	}
	b.WriteString(e.Code.Title())
	switch {
	case e.Got != "" && e.Want != "":
		fmt.Fprintf(&b, ": got %s, want %s", e.Got, e.Want)
	case e.Got != "":
		fmt.Fprintf(&b, ": got %s", e.Got)
	case e.Want != "":
		fmt.Fprintf(&b, ": want %s", e.Want)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	fmt.Fprintf(&b, " (%s)", e.Code)
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Remedy says what to do next.
func (e *Error) Remedy() string {
	if e.Hint != "" {
		return e.Hint
	}
	return e.Code.Remedy()
}

// CodeOf finds the code of the first *Error in err's chain: CodeInternal when there is none, "" for a nil err.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// ErrNotMine is what a Verifier answers for evidence in a format that is not its own: the next one is tried.
var ErrNotMine = errors.New("attest: evidence of another format")
