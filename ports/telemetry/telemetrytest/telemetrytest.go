// Package telemetrytest tests implementations of the telemetry port, and has a
// telemetry in memory for the tests of everything else.
package telemetrytest

import (
	"context"
	"testing"
	"time"

	"github.com/taskcluster/taskcluster-worker/ports/telemetry"
)

// Harness sets up the telemetry under test. Its methods may fail the test.
type Harness interface {
	// Telemetry returns the telemetry, which records everything. Every call
	// during a test returns the same one.
	Telemetry(t testing.TB) telemetry.Telemetry

	// Recording returns what has been recorded, as it has arrived wherever
	// the telemetry sends it. It is called once, at the end of a check, when
	// every span has ended.
	Recording(t testing.TB) Recording
}

// Test runs the conformance tests, each against a fresh harness.
func Test(t *testing.T, newHarness func(testing.TB) Harness) {
	t.Helper()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.check(ctx, t, newHarness(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// check is one law of the port. It returns an error rather than fail the test,
// so that the tests of this package can show that it catches what it is for.
type check struct {
	name  string
	check func(context.Context, testing.TB, Harness) error
}

func checks() []check {
	return []check{
		{"NestsSpans", nestsSpans},
		{"KeepsTracesApart", keepsTracesApart},
		{"DerivesContext", derivesContext},
		{"RecordsErrors", recordsErrors},
		{"RecordsAttributes", recordsAttributes},
		{"RecordsWhenCanceled", recordsWhenCanceled},
		{"AddsCounts", addsCounts},
		{"AddsMeasures", addsMeasures},
		{"TellsParent", tellsParent},
		{"TellsNoParent", tellsNoParent},
		{"TakesOddValues", takesOddValues},
		{"TakesConcurrentCalls", takesConcurrentCalls},
	}
}
