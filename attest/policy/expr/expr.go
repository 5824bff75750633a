// Package expr evaluates the rules of a policy that are written in CEL (the Common Expression Language). It is the only
// place that knows the CEL library.
//
// Every claim is a variable of its own with its own type, so that a misspelt claim or a comparison of a number with text is
// refused when the policy is loaded. A claim that the evidence lacks is no value at all: an expression that needs it has
// no result, and the caller refuses.
package expr

import (
	"errors"
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/types"

	"github.com/jurat-tls/jurat/attest"
)

// Bounds on one expression.
const (
	maxSource = 4 << 10 // bytes
	maxCost   = 20_000  // CEL cost units: about a millisecond
	maxDepth  = 32
	maxItems  = 64  // assumed of every list and map of claims
	maxString = 256 // assumed of every text
)

// Compiler compiles expressions over claims.
type Compiler struct{ env *cel.Env }

// NewCompiler makes a Compiler.
func NewCompiler() (*Compiler, error) {
	text, number := cel.StringType, cel.IntType
	options := []cel.EnvOption{
		cel.StdLib(), cel.ParserRecursionLimit(maxDepth), cel.ParserExpressionSizeLimit(maxSource),
		cel.Variable("binding", text), cel.Variable("age", cel.DurationType), cel.Variable("now", cel.TimestampType),
	}
	for name, t := range map[string]*cel.Type{
		"vendor": text, "tee": text, "product": text, "generation": text, "stepping": text, "simulated": cel.BoolType, "root": text,
		"tcb": cel.MapType(text, number), "tcb_status": text, "tcb_date": cel.TimestampType, "evaluation": number,
		"advisories": cel.ListType(text), "fmspc": text, "version": number, "debug": cel.BoolType, "migratable": cel.BoolType,
		"privilege": number, "platform": cel.MapType(text, cel.BoolType), "measurements": cel.MapType(text, text),
		"numbers": cel.MapType(text, number), "chip_id": text, "ppid": text, "csp": text, "module": text,
	} {
		options = append(options, cel.Variable("claims."+name, t))
	}
	env, err := cel.NewCustomEnv(options...)
	if err != nil {
		return nil, err
	}
	return &Compiler{env}, nil
}

// Program is a compiled expression. It is safe for concurrent use.
type Program struct {
	program cel.Program
	age     bool
}

// Age reports whether the result depends on how old the evidence is.
func (p *Program) Age() bool { return p.age }

// Compile compiles an expression whose result is true or false. The error names what is wrong with it.
func (c *Compiler) Compile(source string) (*Program, error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("%d bytes, more than %d", len(source), maxSource)
	}
	ast, issues := c.env.Compile(source)
	if issues != nil && issues.Err() != nil {
		e := issues.Errors()[0]
		return nil, fmt.Errorf("column %d: %s", e.Location.Column()+1, e.Message)
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("the result is of type %s", ast.OutputType())
	}
	cost, err := c.env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, err
	}
	if cost.Max > maxCost {
		return nil, fmt.Errorf("it may cost %d, more than %d", cost.Max, maxCost)
	}
	program, err := c.env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, err
	}
	p := &Program{program: program}
	for _, ref := range ast.NativeRep().ReferenceMap() {
		p.age = p.age || ref.Name == "age"
	}
	return p, nil
}

// sizes tells the cost estimate how large claims can be. Claims beyond that end the evaluation by its cost limit.
type sizes struct{}

func (sizes) EstimateSize(n checker.AstNode) *checker.SizeEstimate {
	if n.Type().Kind() == types.StringKind {
		return &checker.SizeEstimate{Max: maxString}
	}
	return &checker.SizeEstimate{Max: maxItems}
}

func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// Facts are claims and situation as expressions see them.
type Facts struct{ values map[string]any }

// NewFacts collects what is there. What is absent gets no value.
func NewFacts(c *attest.Claims, s attest.Situation) Facts {
	v := map[string]any{"now": s.Now.UTC()} // CEL writes a time in its zone
	text := func(name, value string) {
		if value != "" {
			v[name] = value
		}
	}
	text("binding", string(s.Level))
	if !s.Made.IsZero() {
		v["age"] = s.Now.Sub(s.Made)
	}
	for name, value := range map[string]string{
		"vendor": c.Vendor, "tee": c.TEE, "product": c.Product, "generation": c.Generation, "stepping": c.Stepping, "root": c.Root,
		"tcb_status": c.TCBStatus, "fmspc": c.FMSPC.String(), "chip_id": c.Provenance.ChipID.String(), "ppid": c.Provenance.PPID.String(),
		"csp": c.Provenance.CSP, "module": c.Provenance.Module,
	} {
		text("claims."+name, value)
	}
	v["claims.simulated"] = c.Simulated
	v["claims.version"] = int64(c.Version)
	v["claims.tcb"] = numbers(c.TCB)
	v["claims.numbers"] = numbers(c.Numbers)
	if c.TCBStatus != "" { // a vendor that judges TCB levels names the advisories, or that there are none
		v["claims.advisories"] = c.Advisories
	}
	if !c.TCBDate.IsZero() {
		v["claims.tcb_date"] = c.TCBDate.UTC()
	}
	if c.Evaluation != nil {
		v["claims.evaluation"] = clamp(*c.Evaluation)
	}
	if c.Privilege != nil {
		v["claims.privilege"] = int64(*c.Privilege)
	}
	flag := func(name string, f attest.Flag) {
		if f != attest.Absent {
			v[name] = f == attest.On
		}
	}
	flag("claims.debug", c.Debug)
	flag("claims.migratable", c.Migratable)
	bits := map[string]bool{}
	for name, f := range c.Platform {
		if f != attest.Absent {
			bits[name] = f == attest.On
		}
	}
	v["claims.platform"] = bits
	measured := map[string]string{}
	for name, value := range c.Measured {
		measured[name] = value.String()
	}
	v["claims.measurements"] = measured
	return Facts{v}
}

func numbers[M ~map[string]uint64](m M) map[string]int64 {
	out := make(map[string]int64, len(m))
	for name, n := range m {
		out[name] = clamp(n)
	}
	return out
}

// clamp fits a number into CEL's int: what is larger than its largest stays larger than everything a policy names.
func clamp(n uint64) int64 {
	const most = 1<<63 - 1
	return int64(min(n, most))
}

// Eval evaluates the expression. An error says that it has no result, because a claim is absent or the cost too high.
func (p *Program) Eval(f Facts) (bool, error) {
	out, _, err := p.program.Eval(f.values)
	if err != nil {
		return false, err
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, errors.New("the result is neither true nor false")
	}
	return yes, nil
}
