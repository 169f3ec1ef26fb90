package jsonschema

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
)

// explain returns the violations behind err: the leaves of its tree, since what
// is above them only says that something is wrong below.
func explain(doc any, err *jsonschema.ValidationError) []payload.Violation {
	here := func(format string, args ...any) []payload.Violation {
		return []payload.Violation{{
			Path:    path(doc, err.InstanceLocation),
			Message: fmt.Sprintf(format, args...),
		}}
	}
	each := func(names []string, message string) []payload.Violation {
		var vs []payload.Violation
		for _, name := range names {
			vs = append(vs, payload.Violation{Path: path(doc, append(slices.Clip(err.InstanceLocation), name)), Message: message})
		}
		return vs
	}
	switch k := err.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		return each(k.Properties, "unknown property")
	case *kind.Required:
		return each(k.Missing, "required property is missing")
	case *kind.Dependency:
		return each(k.Missing, "required property is missing, since there is "+quote(k.Prop))
	case *kind.PropertyNames:
		// The validator says this of an object, but not reliably of which.
		return []payload.Violation{{Path: root, Message: "no property may have the name " + quote(k.Property)}}
	case *kind.AnyOf:
		return closest(doc, err)
	case *kind.OneOf:
		if len(k.Subschemas) > 0 {
			return here("matches more than one of the forms that exclude each other")
		}
		return closest(doc, err)
	case *kind.Contains:
		return here("no item is as it must be")
	}
	if len(err.Causes) == 0 {
		return here("%s", say(err.ErrorKind))
	}
	var all []payload.Violation
	for _, cause := range err.Causes {
		all = append(all, explain(doc, cause)...)
	}
	return all
}

// closest returns the violations of the alternative that the document seems to
// be meant for: the one with the fewest, if possible one of the right type.
func closest(doc any, err *jsonschema.ValidationError) []payload.Violation {
	var best []payload.Violation
	bestFits := false
	for _, alternative := range err.Causes {
		vs := explain(doc, alternative)
		_, wrongType := leaf(alternative).ErrorKind.(*kind.Type)
		fits := !wrongType || len(leaf(alternative).InstanceLocation) > len(err.InstanceLocation)
		if best == nil || fits && !bestFits || fits == bestFits && len(vs) < len(best) {
			best, bestFits = vs, fits
		}
	}
	return best
}

// leaf follows err down to where its tree branches or ends.
func leaf(err *jsonschema.ValidationError) *jsonschema.ValidationError {
	for len(err.Causes) == 1 {
		err = err.Causes[0]
	}
	return err
}

// say words a violation.
func say(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return "expected " + strings.Join(k.Want, " or ") + ", got " + k.Got
	case *kind.Enum:
		var want []string
		for _, v := range k.Want {
			want = append(want, show(v))
		}
		return "must be one of " + strings.Join(want, ", ") + ", got " + show(k.Got)
	case *kind.Const:
		return "must be " + show(k.Want) + ", got " + show(k.Got)
	case *kind.FalseSchema, *kind.Not:
		return "not allowed"
	case *kind.Format:
		return fmt.Sprintf("%s is not a valid %s", show(k.Got), k.Want)
	case *kind.Pattern:
		return fmt.Sprintf("%s does not match the pattern %s", quote(k.Got), k.Want)
	case *kind.MinLength:
		return fmt.Sprintf("must have at least %d characters, has %d", k.Want, k.Got)
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters, has %d", k.Want, k.Got)
	case *kind.MinItems:
		return fmt.Sprintf("must have at least %d items, has %d", k.Want, k.Got)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d items, has %d", k.Want, k.Got)
	case *kind.MinProperties:
		return fmt.Sprintf("must have at least %d properties, has %d", k.Want, k.Got)
	case *kind.MaxProperties:
		return fmt.Sprintf("must have at most %d properties, has %d", k.Want, k.Got)
	case *kind.UniqueItems:
		return fmt.Sprintf("items %d and %d are the same", k.Duplicates[0], k.Duplicates[1])
	case *kind.Minimum:
		return fmt.Sprintf("must be at least %s, got %s", number(k.Want), number(k.Got))
	case *kind.Maximum:
		return fmt.Sprintf("must be at most %s, got %s", number(k.Want), number(k.Got))
	case *kind.ExclusiveMinimum:
		return fmt.Sprintf("must be more than %s, got %s", number(k.Want), number(k.Got))
	case *kind.ExclusiveMaximum:
		return fmt.Sprintf("must be less than %s, got %s", number(k.Want), number(k.Got))
	case *kind.MultipleOf:
		return fmt.Sprintf("must be a multiple of %s, got %s", number(k.Want), number(k.Got))
	}
	return strconv.QuoteToGraphic(k.LocalizedString(message.NewPrinter(language.English)))
}

// show writes a value as JSON, shortened.
func show(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case nil:
		return "null"
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	default:
		return fmt.Sprint(v)
	}
}

func number(r *big.Rat) string {
	if r.IsInt() && r.Num().BitLen() <= 64 {
		return r.Num().String()
	}
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// extremes adds to found a violation for each number in v, which is at location
// in doc, that is beyond a float64: computing with 1e999999 takes long.
func extremes(found []payload.Violation, doc any, location []string, v any) []payload.Violation {
	switch v := v.(type) {
	case json.Number:
		if extreme(string(v)) {
			found = append(found, payload.Violation{Path: path(doc, location), Message: "number is out of range"})
		}
	case []any:
		for i, item := range v {
			found = extremes(found, doc, append(location, strconv.Itoa(i)), item)
		}
	case map[string]any:
		for name, item := range v {
			found = extremes(found, doc, append(location, name), item)
		}
	}
	return found
}

func extreme(number string) bool {
	const mostDigits, mostExponent = 400, 308
	mantissa, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	if exponent == "" {
		exponent = "0"
	}
	e, err := strconv.Atoi(exponent)
	return err != nil || e > mostExponent || e < -mostExponent || len(mantissa) > mostDigits
}

// sorted puts violations in an order that does not depend on that of a map.
func sorted(vs []payload.Violation) []payload.Violation {
	slices.SortFunc(vs, func(a, b payload.Violation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(vs)
}
