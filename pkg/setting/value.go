package setting

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Check returns what is wrong with a value, or nil. The value of a secret is
// not in the error.
func (s *Setting) Check(value string) error {
	if s.kind.isList() {
		if _, problems := s.readList("", value); len(problems) > 0 {
			return problems
		}
		return nil
	}
	if err := s.check(value); err != nil {
		return fmt.Errorf("expected %s, got %s", s.Expected(), s.quote(value))
	}
	return nil
}

// userinfo is what a URL may have of a user and a password. Too much is taken
// for that rather than too little.
var userinfo = regexp.MustCompile(`//.*@`)

// quote returns a value for a message, without what may be secret in it.
func (s *Setting) quote(value string) string {
	if s.Secret {
		return "something else"
	}
	return strconv.Quote(userinfo.ReplaceAllString(value, "//(hidden)@"))
}

var errRange = errors.New("out of range")

func (s *Setting) check(value string) error {
	v, err := s.kind.parse(value)
	if err != nil {
		return err
	}
	if len(s.oneOf) > 0 && !slices.Contains(s.oneOf, value) || s.pattern != nil && !s.pattern.MatchString(value) {
		return errRange
	}
	if least, err := s.kind.parse(s.min); s.min != "" && (err != nil || v < least) {
		return errRange
	}
	if most, err := s.kind.parse(s.max); s.max != "" && (err != nil || v > most) {
		return errRange
	}
	return nil
}

// parse returns the magnitude of a value, which is 0 for text.
func (k kind) parse(value string) (float64, error) {
	switch k {
	case boolean:
		if value != "true" && value != "false" {
			return 0, errRange
		}
		return 0, nil
	case integer:
		n, err := strconv.Atoi(value)
		return float64(n), err
	case number:
		n, err := strconv.ParseFloat(value, 64)
		if math.IsNaN(n) || math.IsInf(n, 0) {
			return 0, errRange
		}
		return n, err
	case duration:
		d, err := time.ParseDuration(value)
		return float64(d), err
	case size:
		n, err := ParseBytes(value)
		return float64(n), err
	default:
		return 0, nil
	}
}

// Expected says in words which values a setting takes.
func (s *Setting) Expected() string {
	words := [...]string{
		text: "text", boolean: "true or false", integer: "a whole number", number: "a number",
		duration: "a duration such as 90s or 24h", size: "a size such as 512MiB or 4GiB",
		texts: "a list of texts", list: "a list",
	}[s.kind]
	switch {
	case s.kind == list:
		return words + " of keys and values (" + strings.Join(s.entries.keys(""), ", ") + ")"
	case len(s.oneOf) > 0:
		return orList(s.oneOf)
	case s.example != "":
		return words + " such as " + s.example
	case s.min != "" && s.max != "":
		return words + " from " + s.min + " to " + s.max
	case s.min != "":
		return words + ", at least " + s.min
	default:
		return words
	}
}

var units = []struct {
	suffix string
	factor float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// orList returns values as in "a, b or c".
func orList(values []string) string {
	last := len(values) - 1
	if last < 1 {
		return strings.Join(values, "")
	}
	return strings.Join(values[:last], ", ") + " or " + values[last]
}

// ParseBytes reads a size: a number of bytes, with a unit such as MiB (2^20
// bytes) or MB (10^6 bytes).
func ParseBytes(value string) (Bytes, error) {
	digits, factor := value, 1.0
	for _, u := range units {
		if d, ok := strings.CutSuffix(value, u.suffix); ok {
			digits, factor = strings.TrimRight(d, " "), u.factor
			break
		}
	}
	if strings.Trim(digits, "0123456789.") != "" {
		return 0, fmt.Errorf("%q is not a size", value)
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n*factor >= 1<<62 {
		return 0, fmt.Errorf("%q is not a size", value)
	}
	return Bytes(math.Round(n * factor)), nil
}
