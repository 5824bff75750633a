package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mutant is one removal.
type mutant struct {
	id       int
	file     string // from the root of the module
	line     int
	function string
	kind     string
	text     string // of what is removed, on one line
	reached  bool
	killed   bool
}

func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d: %s: %s: %s", m.file, m.line, m.function, m.kind, m.text)
}

// schema is a package with a switch beside every check.
type schema struct {
	pkg     pkg
	files   map[string][]byte // by path
	mutants []*mutant
}

// Names that only make text, whatever they are methods of: what they do decides nothing.
var textual = []string{"String", "GoString", "MarshalJSON", "MarshalText", "Format"}

// The functions that the switches call, in a file of their own.
const helpers = `package %s

import (
	"os"
	"strconv"
	"sync/atomic"
)

var (
	mutationActive, _ = strconv.Atoi(os.Getenv("MUTATION_ACTIVE"))
	mutationHits      = os.Getenv("MUTATION_HITS")
	mutationSeen      [%d]atomic.Bool
)

// mutationOn reports whether the check with this number is removed.
func mutationOn(id int) bool {
	if mutationHits != "" && !mutationSeen[id].Swap(true) {
		if f, err := os.OpenFile(mutationHits, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			f.WriteString(strconv.Itoa(id) + "\n")
			f.Close()
		}
	}
	return id == mutationActive
}

func mutationNil(id int, err error) error {
	if mutationOn(id) {
		return nil
	}
	return err
}

var _ = mutationNil
`

func instrument(p pkg, root string) (*schema, error) {
	s := &schema{pkg: p, files: map[string][]byte{}}
	fset := token.NewFileSet()
	type source struct {
		path string
		text []byte
		ast  *ast.File
	}
	var sources []source
	declared := map[string]bool{}
	for _, name := range p.GoFiles {
		path := filepath.Join(p.Dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if ast.IsGenerated(file) {
			continue
		}
		sources = append(sources, source{path, text, file})
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				declared[f.Name.Name] = true
			}
		}
	}
	for _, src := range sources {
		e := &editor{schema: s, fset: fset, text: src.text, file: relative(root, src.path), declared: declared, insert: map[int]*[2]string{}}
		for _, d := range src.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil && !slices.Contains(textual, f.Name.Name) {
				e.function = functionName(f)
				e.body(f.Type, f.Body)
			}
		}
		s.files[src.path] = e.apply()
	}
	s.files[filepath.Join(p.Dir, "mutation_schema.go")] = fmt.Appendf(nil, helpers, p.Name, len(s.mutants)+1)
	return s, nil
}

func functionName(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return f.Name.Name
	}
	t := f.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if index, ok := t.(*ast.IndexExpr); ok {
		t = index.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + f.Name.Name
	}
	return f.Name.Name
}

// editor gathers insertions into one file. Nested ones compose: what begins later ends earlier.
type editor struct {
	*schema
	fset     *token.FileSet
	text     []byte
	file     string
	function string
	declared map[string]bool
	insert   map[int]*[2]string // by offset: what ends there, and what begins there
}

func (e *editor) offset(p token.Pos) int { return e.fset.Position(p).Offset }

// mutant registers one.
func (e *editor) mutant(n ast.Node, kind string) int {
	m := &mutant{
		id: len(e.mutants) + 1, file: e.file, line: e.fset.Position(n.Pos()).Line, function: e.function, kind: kind,
		text: strings.Join(strings.Fields(string(e.text[e.offset(n.Pos()):e.offset(n.End())])), " "),
	}
	e.mutants = append(e.mutants, m)
	return m.id
}

// wrap puts text around a node. Outer nodes are wrapped before inner ones.
func (e *editor) wrap(n ast.Node, before, after string) {
	from, to := e.offset(n.Pos()), e.offset(n.End())
	at := func(i int) *[2]string {
		if e.insert[i] == nil {
			e.insert[i] = new([2]string)
		}
		return e.insert[i]
	}
	at(from)[1] += before
	at(to)[0] = after + at(to)[0]
}

func (e *editor) apply() []byte {
	var out bytes.Buffer
	last := 0
	for _, at := range slices.Sorted(maps.Keys(e.insert)) {
		out.Write(e.text[last:at])
		out.WriteString(e.insert[at][0] + e.insert[at][1])
		last = at
	}
	out.Write(e.text[last:])
	return out.Bytes()
}

// never and always put a switch beside a condition.
func (e *editor) never(n ast.Expr, kind string) {
	e.wrap(n, fmt.Sprintf("(!mutationOn(%d) && (", e.mutant(n, kind)), "))")
}

func (e *editor) always(n ast.Expr, kind string) {
	e.wrap(n, fmt.Sprintf("(mutationOn(%d) || (", e.mutant(n, kind)), "))")
}

// results tells what the last result of a function is.
func results(t *ast.FuncType) (last string) {
	if t.Results == nil || len(t.Results.List) == 0 {
		return ""
	}
	switch x := t.Results.List[len(t.Results.List)-1].Type.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.StarExpr:
		if sel, ok := x.X.(*ast.SelectorExpr); ok && sel.Sel.Name == "Error" {
			return "*error"
		}
		if id, ok := x.X.(*ast.Ident); ok && id.Name == "Error" {
			return "*error"
		}
	}
	return ""
}

// body goes through one function; functions inside it have results of their own.
func (e *editor) body(t *ast.FuncType, body *ast.BlockStmt) {
	last := results(t)
	tails := map[ast.Stmt]bool{}
	if n := len(body.List); n > 0 {
		tails[body.List[n-1]] = true
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			e.body(n.Type, n.Body)
			return false
		case *ast.IfStmt:
			e.condition(n.Cond, n.Body.List, last, n.Else != nil)
		case *ast.SwitchStmt:
			e.clauses(n, last, tails)
		case *ast.BinaryExpr:
			if n.Op == token.LAND {
				e.always(n.X, "&& without")
				e.always(n.Y, "&& without")
			}
			if n.Op == token.LOR {
				e.never(n.X, "|| without")
				e.never(n.Y, "|| without")
			}
		case *ast.ReturnStmt:
			e.returned(n, last, tails[n])
		case *ast.ExprStmt:
			if call, ok := n.X.(*ast.CallExpr); ok && e.declared[callee(call)] {
				e.wrap(n, fmt.Sprintf("if !mutationOn(%d) { ", e.mutant(n, "call")), " }")
			}
		}
		return true
	})
}

func (e *editor) clauses(s *ast.SwitchStmt, last string, tails map[ast.Stmt]bool) {
	for _, c := range s.Body.List {
		clause := c.(*ast.CaseClause)
		if s.Tag == nil {
			for _, x := range clause.List {
				e.condition(x, clause.Body, last, false)
			}
			if clause.List != nil {
				continue
			}
		}
		// No condition can be switched off here; what the clause ends in can.
		if n := len(clause.Body); n > 0 {
			tails[clause.Body[n-1]] = true
		}
	}
}

func (e *editor) condition(cond ast.Expr, body []ast.Stmt, last string, hasElse bool) {
	e.never(cond, "never")
	if hasElse || !refuses(body, last) {
		e.always(cond, "always")
	}
}

// refuses tells whether what follows a condition turns something down.
func refuses(body []ast.Stmt, last string) (found bool) {
	for _, s := range body {
		ast.Inspect(s, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				return false
			case *ast.ReturnStmt:
				if len(n.Results) == 0 {
					return true
				}
				text, isIdent := "", false
				if id, ok := n.Results[len(n.Results)-1].(*ast.Ident); ok {
					text, isIdent = id.Name, true
				}
				switch last {
				case "error", "*error":
					found = found || !isIdent || text != "nil"
				case "bool":
					found = found || text == "false"
				}
			case *ast.BranchStmt:
				found = found || n.Tok == token.CONTINUE
			case *ast.CallExpr:
				found = found || callee(n) == "fail" || callee(n) == "refuse" || callee(n) == "Refuse"
			}
			return true
		})
	}
	return found
}

func callee(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

func (e *editor) returned(r *ast.ReturnStmt, last string, tail bool) {
	if len(r.Results) == 0 {
		return
	}
	x := r.Results[len(r.Results)-1]
	name := ""
	if id, ok := x.(*ast.Ident); ok {
		name = id.Name
	}
	switch {
	case last == "bool" && len(r.Results) > 0 && !isCallOfMany(r, x):
		if name != "true" {
			e.always(x, "returns true")
		}
		if name != "false" {
			e.never(x, "returns false")
		}
	case last == "error" && tail && name != "nil" && !isCallOfMany(r, x):
		e.wrap(x, fmt.Sprintf("mutationNil(%d, ", e.mutant(x, "no error")), ")")
	}
}

// isCallOfMany tells whether x could give several results, as in "return f()".
func isCallOfMany(r *ast.ReturnStmt, x ast.Expr) bool {
	_, call := x.(*ast.CallExpr)
	return call && len(r.Results) == 1
}
