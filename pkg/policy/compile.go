package policy

import (
	"fmt"
	"math"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
)

// The variables of expressions.
const (
	varID      = "peer.id"
	varAttr    = "peer.attr"
	varAction  = "action"
	varNow     = "now"
	varService = "service"
	varTo      = "to"
	varTarget  = "target"
)

// A variable is declared in every expression, so that one in the wrong place
// gets a better error than an unknown one.
type variable struct {
	name string
	typ  *cel.Type
	only Action // where it applies; "" for everywhere
	what string
}

// variables is never written.
var variables = []variable{
	{name: varID, typ: cel.StringType},
	{name: varAttr, typ: cel.MapType(cel.StringType, cel.StringType)},
	{name: varAction, typ: cel.StringType},
	{name: varNow, typ: cel.TimestampType},
	{name: varService, typ: cel.StringType, only: Open, what: "the service of a stream, which an outlet's allow decides about"},
	{name: varTarget, typ: cel.StringType, only: Connect, what: "the outlet that a caller wants, which a relay's connect decides about"},
	{name: varTo, typ: cel.StringType, only: Extend, what: "where a relay carries a caller on to, which its extend decides about"},
}

// variableSizes is never written: the most characters of those that are texts.
var variableSizes = map[string]uint64{
	varID: 52, varAction: 8, varService: 63, varTarget: 52, varTo: uint64(253 + len("[]:65535")),
}

// variablesOf returns the names of those that apply to an action.
func variablesOf(action Action) (names []string) {
	for _, v := range variables {
		if v.only == "" || v.only == action {
			names = append(names, v.name)
		}
	}
	return names
}

// An expression is compiled text.
type expression struct {
	action Action
	text   string
	uses   []string // variables
	ast    *ast.AST

	// fast stops at a cost. traced remembers what every part was, and does the
	// same steps; cel-go counts no cost while it does, so that it is used only
	// after fast has come to its end with the same request.
	fast, traced cel.Program
}

// newEnv returns what all expressions are compiled in.
func newEnv() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.EnableMacroCallTracking(), // explanations show macros as they were written
		cel.ParserExpressionSizeLimit(MaxExpression),
		cel.ParserRecursionLimit(maxDepth),
		cel.ParserErrorRecoveryLimit(maxRecovery),
		cel.ExpressionNodeLimit(maxNodes),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateComprehensionNestingLimit(maxLoops),
		),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.typ))
	}
	return cel.NewEnv(options...)
}

// compile checks a text and plans its evaluation. The error is an Errors.
func compile(action Action, text string, l limits) (e *expression, err error) {
	at := func(line, column int, format string, args ...any) error {
		return Errors{newError(text, line, column, fmt.Sprintf(format, args...))}
	}
	// The compiler is not ours; a mistake of it is this expression's fault only.
	defer func() {
		if r := recover(); r != nil {
			e, err = nil, at(1, 1, "the expression cannot be read (%v): simplify it", r)
		}
	}()
	switch {
	case !slices.Contains(Actions(), action):
		return nil, at(1, 1, "there is no action %s", quote(string(action)))
	case strings.TrimSpace(text) == "":
		return nil, at(1, 1, "the expression is empty")
	case len(text) > MaxExpression:
		return nil, at(1, 1, "the expression has %d bytes, more than %d: identifiers in that number belong in a list", len(text), MaxExpression)
	}
	env, err := newEnv()
	if err != nil {
		return nil, at(1, 1, "preparing CEL: %v", err)
	}
	checked, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, explained(action, text, issues.Errors())
	}
	c := &check{action: action, text: text, ast: checked.NativeRep()}
	if c.run(); c.faults != nil {
		return nil, c.faults.sorted()
	}
	cost, err := env.EstimateCost(checked, sizes{})
	switch {
	case err != nil:
		return nil, at(1, 1, "estimating the cost: %v", err)
	case cost.Max == math.MaxUint64:
		return nil, at(1, 1, "there is no bound to how long this can take: compare or match variables instead of what is made of them")
	case cost.Max > l.estimate:
		return nil, at(1, 1, "this can take up to %d steps for one decision, more than %d: loop less, or match less of a text", cost.Max, l.estimate)
	}
	e = &expression{action: action, text: text, uses: c.uses, ast: checked.NativeRep()}
	zones := cel.CustomDecoratorV2(decorateZones)
	if e.fast, err = env.Program(checked, cel.CostLimit(l.run), cel.EvalOptions(cel.OptOptimize), zones); err == nil {
		e.traced, err = env.Program(checked, cel.EvalOptions(cel.OptOptimize, cel.OptTrackState), zones)
	}
	if err != nil {
		return nil, at(1, 1, "%v", err)
	}
	return e, nil
}

// A check looks through a type-checked expression for what CEL allows and a
// policy does not.
type check struct {
	action Action
	text   string
	ast    *ast.AST
	uses   []string
	faults Errors
}

func (c *check) fault(e ast.Expr, format string, args ...any) {
	at := c.ast.SourceInfo().GetStartLocation(e.ID())
	c.faults = append(c.faults, newError(c.text, at.Line(), at.Column()+1, fmt.Sprintf(format, args...)))
}

func (c *check) run() {
	root := c.ast.Expr()
	if t := c.ast.GetType(root.ID()); t == nil || t.Kind() != types.BoolKind {
		c.fault(root, "the result is %s: want a comparison, or another thing that is true or false", typeName(t))
	}
	ast.PostOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			c.ident(e)
		case ast.CallKind:
			c.call(e)
		}
	}))
}

// ident notes a variable, and refuses one that has no value here.
func (c *check) ident(e ast.Expr) {
	i := slices.IndexFunc(variables, func(v variable) bool { return v.name == e.AsIdent() })
	if i < 0 {
		return // a variable of a macro
	}
	v := variables[i]
	if v.only != "" && v.only != c.action {
		c.fault(e, "%s has no meaning for %s: it is %s; there are %s", v.name, c.action, v.what, strings.Join(variablesOf(c.action), ", "))
	}
	if !slices.Contains(c.uses, v.name) {
		c.uses = append(c.uses, v.name)
	}
}

// call refuses patterns and zones that are only known when somebody asks: a
// pattern would be compiled, and a zone looked for in the file system, for each
// request, and by the peer's choice.
func (c *check) call(e ast.Expr) {
	call := e.AsCall()
	args := call.Args()
	switch {
	case len(args) == 0:
	case call.FunctionName() == "matches":
		pattern, ok := literal(args[len(args)-1])
		if !ok {
			c.fault(e, "the pattern of matches must be a literal, like \"^web-[0-9]+$\"")
			return
		}
		switch size, err := regexSize(pattern); {
		case err != nil:
			c.fault(args[len(args)-1], "the pattern of matches: %v", err)
		case size > maxRegex:
			c.fault(args[len(args)-1], "the pattern of matches is too large when compiled: repeat less in it")
		}
	case call.IsMemberFunction() && strings.HasPrefix(call.FunctionName(), "get"):
		zone, ok := literal(args[0])
		if !ok {
			c.fault(e, "the time zone of %s must be a literal, like \"Europe/Berlin\"", call.FunctionName())
			return
		}
		if _, err := loadZone(zone); err != nil {
			c.fault(args[0], "the time zone of %s: %v", call.FunctionName(), err)
		}
	}
}

// regexSize returns how many instructions a pattern has when compiled.
func regexSize(pattern string) (int, error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0, err
	}
	return len(program.Inst), nil
}

// literal returns the text that e is.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// typeName names a type for a person.
func typeName(t *types.Type) string {
	if t == nil {
		return "of an unknown type"
	}
	switch t.Kind() {
	case types.DynKind, types.AnyKind:
		return "of a type that is known only later"
	}
	return "of type " + t.String()
}

// activation are the variables' values of one request.
type activation struct {
	r   *Request
	id  string
	now time.Time
}

// ResolveName implements [cel.Activation].
func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case varID:
		if a.id == "" {
			a.id = a.r.Peer.ID.String()
		}
		return types.String(a.id), true
	case varAttr:
		return a.r.Peer.Attr, true
	case varAction:
		return types.String(a.r.Action), true
	case varNow:
		if a.now.IsZero() {
			a.now = a.r.Now
		}
		if a.now.IsZero() {
			a.now = time.Now()
		}
		return types.Timestamp{Time: a.now.UTC()}, true
	case varService:
		return types.String(a.r.Service), true
	case varTarget:
		if a.r.Target.IsZero() {
			return types.String(""), true
		}
		return types.String(a.r.Target.String()), true
	case varTo:
		return types.String(a.r.To), true
	}
	return nil, false
}

// Parent implements [cel.Activation].
func (a *activation) Parent() cel.Activation { return nil }
