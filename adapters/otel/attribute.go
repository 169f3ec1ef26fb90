package otel

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
)

// maxText is how many bytes of a text are sent. Tasks have a say in some of
// them, such as those of errors, and a collector refuses what is too large
// together with all else that is sent with it.
const maxText = 4096

// text returns s as it may be sent: of bounded length and valid UTF-8, without
// which nothing of a batch can be encoded.
func text(s string) string {
	if len(s) > maxText {
		const cut = " (cut)"
		s = strings.ToValidUTF8(s[:maxText-len(cut)], "") + cut
	}
	if utf8.ValidString(s) {
		return s
	}
	// "?" is not longer than what it stands for.
	return strings.ToValidUTF8(s, "?")
}

// attributes returns attrs with types of OpenTelemetry. The keys of a group are
// joined with dots. Durations become seconds; what has no type there, its text.
func attributes(attrs []slog.Attr) []attribute.KeyValue {
	if len(attrs) == 0 {
		return nil
	}
	return appendAttributes(make([]attribute.KeyValue, 0, len(attrs)), "", attrs)
}

func appendAttributes(to []attribute.KeyValue, prefix string, attrs []slog.Attr) []attribute.KeyValue {
	for _, a := range attrs {
		v := a.Value.Resolve()
		if v.Kind() != slog.KindGroup {
			to = append(to, attribute.KeyValue{Key: attribute.Key(text(prefix + a.Key)), Value: value(v)})
			continue
		}
		group := prefix
		if a.Key != "" {
			group += a.Key + "."
		}
		to = appendAttributes(to, group, v.Group())
	}
	return to
}

func value(v slog.Value) attribute.Value {
	switch v.Kind() {
	case slog.KindBool:
		return attribute.BoolValue(v.Bool())
	case slog.KindInt64:
		return attribute.Int64Value(v.Int64())
	case slog.KindUint64:
		if n := v.Uint64(); n <= math.MaxInt64 {
			return attribute.Int64Value(int64(n))
		}
		return attribute.StringValue(v.String())
	case slog.KindFloat64:
		return attribute.Float64Value(v.Float64())
	case slog.KindDuration:
		return attribute.Float64Value(v.Duration().Seconds())
	case slog.KindTime:
		return attribute.StringValue(v.Time().UTC().Format(time.RFC3339Nano))
	case slog.KindString:
		return attribute.StringValue(text(v.String()))
	default:
	}
	if list, ok := v.Any().([]string); ok {
		texts := make([]string, 0, min(len(list), maxList))
		for _, s := range list[:min(len(list), maxList)] {
			texts = append(texts, text(s))
		}
		return attribute.StringSliceValue(texts)
	}
	// Sprint also survives values whose methods panic.
	return attribute.StringValue(text(fmt.Sprint(v.Any())))
}

// maxList is how many texts of a list are sent.
const maxList = 128
