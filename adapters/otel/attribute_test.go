package otel

import (
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
)

type secret string

func (secret) LogValue() slog.Value { return slog.StringValue("hidden") }

func TestAttributes(t *testing.T) {
	got := map[string]any{}
	for _, kv := range attributes([]slog.Attr{
		slog.String("string", "text"),
		slog.Int("int", -1),
		slog.Uint64("uint", 7),
		slog.Uint64("large uint", math.MaxUint64),
		slog.Float64("float", 0.5),
		slog.Bool("bool", true),
		slog.Duration("duration", 1500*time.Millisecond),
		slog.Time("time", time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))),
		slog.Any("error", errors.New("failed")),
		slog.Any("list", []string{"a", "b\xff"}),
		slog.Any("map", map[string]int{"a": 1}),
		slog.Any("nil", nil),
		slog.Any("secret", secret("hunter2")),
		slog.Group("group", slog.String("a", "b"), slog.Group("deep", slog.Int("c", 1))),
		slog.Group("", slog.String("inline", "yes")),
	}) {
		got[string(kv.Key)] = kv.Value.AsInterface()
	}
	want := map[string]any{
		"string": "text", "int": int64(-1), "uint": int64(7), "large uint": "18446744073709551615", "float": 0.5, "bool": true,
		"duration": 1.5, "time": "2026-01-02T02:04:05.000000006Z", "error": "failed", "list": []string{"a", "b?"},
		"map": "map[a:1]", "nil": "<nil>", "secret": "hidden", "group.a": "b", "group.deep.c": int64(1), "inline": "yes",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	long := attributes([]slog.Attr{slog.Any("list", make([]string, 1000))})
	if got := len(long[0].Value.AsStringSlice()); got != maxList {
		t.Errorf("%d of 1000 texts are sent, want %d", got, maxList)
	}
	if got := attributes(nil); got != nil {
		t.Errorf("attributes of nothing are %v", got)
	}
	if kind := attributes([]slog.Attr{slog.Any("", nil)})[0].Value.Type(); kind != attribute.STRING {
		t.Errorf("nil is a %v, want a string", kind)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "short", "\xff", strings.Repeat("ä", maxText), "x" + strings.Repeat("ä", maxText/2), strings.Repeat("\xff", maxText)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := text(s)
		if len(got) > maxText {
			t.Errorf("text has %d bytes, want at most %d", len(got), maxText)
		}
		if !utf8.ValidString(got) {
			t.Errorf("text %q is not valid UTF-8", got)
		}
		if len(s) <= maxText && utf8.ValidString(s) && got != s {
			t.Errorf("text is %q, want %q as it is", got, s)
		}
	})
}
