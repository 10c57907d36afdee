package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

// Why an evaluation is not tried, or not trusted.
var (
	errFalse   = errors.New("the expression is false")
	errStopped = errors.New("the expression took too many steps and was stopped")
)

// eval evaluates the expression. refused is nil only if it is true.
func (e *expression) eval(r *Request) (a activation, refused error) {
	a.r = r
	if r.Action != e.action {
		return a, fmt.Errorf("the policy is for %s and was asked about %s", e.action, quote(string(r.Action)))
	}
	if reason := r.Peer.outOfBounds(); reason != "" {
		return a, errors.New(reason)
	}
	if r.Peer.Unclear != "" && slices.Contains(e.uses, varAttr) {
		return a, fmt.Errorf("peer's attributes are not clear: %s", oneLine(r.Peer.Unclear))
	}
	// The program recovers from panics, and its own error is never absorbed by
	// an operator: a part's error is one only if the outcome depends on it.
	out, _, err := e.fast.Eval(&a)
	var stopped interpreter.EvalCancelledError
	switch {
	case errors.As(err, &stopped):
		return a, errStopped
	case err != nil:
		return a, &evalError{err}
	case out != types.True:
		return a, errFalse
	}
	return a, nil
}

// An evalError is an error of CEL's while it evaluates.
type evalError struct{ err error }

func (e *evalError) Error() string { return cut(oneLine(e.err.Error()), 200) }

// decide answers with an explanation.
func (e *expression) decide(r *Request) Decision {
	a, refused := e.eval(r)
	var failed *evalError
	switch {
	case refused == nil:
		return Decision{Allowed: true, Reason: "the expression is true"}
	case errors.Is(refused, errFalse), errors.As(refused, &failed):
		if why := e.explain(&a); why != "" {
			return Decision{Reason: why}
		}
	}
	return Decision{Reason: cut(refused.Error(), MaxReason-len("…"))}
}

// explain evaluates once more, in the same steps, and says which parts made the
// expression false or fail.
func (e *expression) explain(a *activation) string {
	_, details, _ := e.traced.Eval(a)
	if details == nil || details.State() == nil {
		return ""
	}
	x := explainer{info: e.ast.SourceInfo(), state: details.State()}
	x.why(e.ast.Expr())
	return cut(strings.Join(x.parts, "; "), MaxReason-len("…"))
}

// maxParts bounds how many parts an explanation names.
const maxParts = 4

// An explainer goes through an evaluated expression and collects what decided.
type explainer struct {
	info  *ast.SourceInfo
	state interpreter.EvalState
	parts []string
}

// value returns what e was, or nil if it was not evaluated.
func (x *explainer) value(e ast.Expr) ref.Val {
	v, _ := x.state.Value(e.ID())
	return v
}

func (x *explainer) say(format string, args ...any) {
	if part := fmt.Sprintf(format, args...); len(x.parts) < maxParts {
		x.parts = append(x.parts, part)
	}
}

// why says why e is what it is: false, true below a negation, or an error.
func (x *explainer) why(e ast.Expr) {
	v := x.value(e)
	if v == nil {
		return
	}
	if e.Kind() == ast.CallKind {
		call := e.AsCall()
		args := call.Args()
		switch call.FunctionName() {
		case operators.LogicalAnd, operators.LogicalOr:
			// The operands that are as the whole is have made it so. An error
			// decides, or with || stands beside operands that are false.
			for _, arg := range args {
				av := x.value(arg)
				if av != nil && (types.IsError(v) && (types.IsError(av) || av == types.False) || av == v) {
					x.why(arg)
				}
			}
			return
		case operators.LogicalNot:
			x.why(args[0])
			return
		case operators.Conditional:
			x.conditional(args)
			return
		}
	}
	if types.IsError(v) {
		x.cause(e)
		return
	}
	if e.Kind() == ast.LiteralKind {
		x.say("a constant in the expression is %s", shown(v))
		return
	}
	x.say("%s is %s%s", x.text(e), shown(v), x.operands(e))
}

// conditional explains c ? a : b, of which one branch was evaluated.
func (x *explainer) conditional(args []ast.Expr) {
	c := x.value(args[0])
	x.why(args[0])
	if types.IsError(c) {
		return
	}
	branch := args[2]
	if c == types.True {
		branch = args[1]
	}
	x.why(branch)
}

// operands returns what the variable operands of a comparison or call were.
func (x *explainer) operands(e ast.Expr) string {
	if e.Kind() != ast.CallKind {
		return ""
	}
	call := e.AsCall()
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	var seen []string
	for _, arg := range args {
		if v := x.value(arg); v != nil && varies(arg) {
			seen = append(seen, x.text(arg)+" is "+shown(v))
		}
	}
	if seen == nil {
		return ""
	}
	return ": " + strings.Join(seen, ", ")
}

// varies reports whether there is a variable in e.
func varies(e ast.Expr) bool {
	return e.Kind() == ast.IdentKind || slices.ContainsFunc(children(e), varies)
}

// cause goes down to where an error began, and says what it is.
func (x *explainer) cause(e ast.Expr) {
	for _, child := range children(e) {
		if v := x.value(child); v != nil && types.IsError(v) {
			x.cause(child)
			return
		}
	}
	if name, ok := x.attribute(e); ok && strings.HasPrefix(fmt.Sprint(x.value(e)), "no such key") {
		x.say("peer has no attribute %s", name)
		return
	}
	x.say("%s: %s", x.text(e), cut(oneLine(fmt.Sprint(x.value(e))), 120))
}

// attribute returns which attribute of the peer e stands for, quoted.
func (x *explainer) attribute(e ast.Expr) (string, bool) {
	isAttr := func(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == varAttr }
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		return quote(s.FieldName()), isAttr(s.Operand())
	case ast.CallKind:
		c := e.AsCall()
		if c.FunctionName() != operators.Index || !isAttr(c.Args()[0]) {
			return "", false
		}
		if key, ok := literal(c.Args()[1]); ok {
			return quote(key), true
		}
		return x.text(c.Args()[1]), true
	}
	return "", false
}

// children returns the parts that e is made of.
func children(e ast.Expr) []ast.Expr {
	switch e.Kind() {
	case ast.CallKind:
		c := e.AsCall()
		if c.IsMemberFunction() {
			return append([]ast.Expr{c.Target()}, c.Args()...)
		}
		return c.Args()
	case ast.SelectKind:
		return []ast.Expr{e.AsSelect().Operand()}
	case ast.ListKind:
		return e.AsList().Elements()
	case ast.ComprehensionKind:
		// What is inside has another value in each round: the state holds the
		// last one only.
		return []ast.Expr{e.AsComprehension().IterRange()}
	}
	return nil
}

// text returns e as it is written, cut short.
func (x *explainer) text(e ast.Expr) string {
	s, err := cel.ExprToString(e, x.info)
	if err != nil {
		return "a part of the expression"
	}
	return cut(oneLine(redact(s)), 160)
}

// shown prints a value for a log: bounded, on one line, texts in quotes.
func shown(v ref.Val) string {
	switch v := v.(type) {
	case types.String:
		return quote(string(v))
	case types.Bool, types.Int, types.Uint, types.Double, types.Null:
		return fmt.Sprint(v.Value())
	case types.Timestamp:
		return v.Format(time.RFC3339)
	case types.Duration:
		return v.Duration.String()
	case types.Bytes:
		return fmt.Sprintf("%d bytes", len(v))
	case traits.Sizer:
		return fmt.Sprintf("of %v entries", v.Size())
	}
	return "of type " + v.Type().TypeName()
}
