package policy

import (
	"fmt"

	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/types"
)

// Bounds of what an expression may be and see.
const (
	MaxExpression     = 8 << 10 // bytes of an expression's text
	MaxAttributes     = 64      // of one peer
	MaxAttributeName  = 64      // bytes
	MaxAttributeValue = 1 << 10 // bytes
	MaxReason         = 600     // bytes of a Decision's Reason

	maxNodes    = 8 << 10 // of a parsed expression: a list of a hundred identifiers needs a hundred
	maxDepth    = 50      // of its nesting
	maxLoops    = 2       // nested macros that loop (all, exists, map, filter)
	maxRegex    = 1000    // instructions of one compiled pattern
	maxRecovery = 5       // places where the parser goes on after a fault
)

// A limits bounds the cost of one evaluation, in CEL's units, of which one is
// about a comparison: some 50 to 100 ns.
type limits struct {
	estimate uint64 // the worst case that is still accepted by compile
	run      uint64 // beyond which an evaluation is stopped
}

// The worst case of one evaluation is some milliseconds. The second bound holds
// even where the estimate is wrong.
var defaultLimits = limits{estimate: 50_000, run: 50_000}

// outOfBounds says which bound the peer's attributes exceed, or returns "".
func (p Peer) outOfBounds() string {
	if len(p.Attr) > MaxAttributes {
		return fmt.Sprintf("peer has %d attributes, more than %d", len(p.Attr), MaxAttributes)
	}
	for name, value := range p.Attr {
		switch {
		case len(name) > MaxAttributeName:
			return fmt.Sprintf("peer has an attribute whose name has %d bytes, more than %d", len(name), MaxAttributeName)
		case len(value) > MaxAttributeValue:
			return fmt.Sprintf("peer's attribute %s has %d bytes, more than %d", quote(name), len(value), MaxAttributeValue)
		}
	}
	return ""
}

// sizes tells the cost estimator how large variables can be.
type sizes struct{}

// EstimateSize implements [checker.CostEstimator] for variables and what is in
// them, in characters or entries. Of anything else the size is unknown.
func (sizes) EstimateSize(n checker.AstNode) *checker.SizeEstimate {
	path := n.Path()
	if len(path) == 0 {
		return nil
	}
	most, known := uint64(0), true
	switch {
	case path[0] == varAttr && len(path) == 1:
		most = MaxAttributes
	case path[0] == varAttr && len(path) == 2 && path[1] == "@keys":
		most = MaxAttributeName
	case path[0] == varAttr && len(path) == 2:
		most = MaxAttributeValue
	case len(path) == 1:
		most, known = variableSizes[path[0]]
	default:
		known = false
	}
	if !known {
		return nil
	}
	return &checker.SizeEstimate{Max: most}
}

// EstimateCallCost implements [checker.CostEstimator]: CEL's own estimates hold,
// but for the conversions to text that it does not know the length of.
func (sizes) EstimateCallCost(function, _ string, _ *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	if function != "string" || len(args) != 1 || args[0].Type().Kind() == types.StringKind || args[0].Type().Kind() == types.BytesKind {
		return nil
	}
	// The longest is a timestamp's or a double's.
	return &checker.CallEstimate{CostEstimate: checker.FixedCostEstimate(1), ResultSize: &checker.SizeEstimate{Max: 40}}
}
