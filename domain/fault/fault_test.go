package fault_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/run"
)

func TestClassify(t *testing.T) {
	cause := errors.New("connection refused")
	exception := func(r run.Reason) run.Resolution { return run.Resolution{Outcome: run.Exception, Reason: r} }
	for _, tt := range []struct {
		name string
		err  error
		want run.Resolution
		msg  string
	}{
		{"what nobody classified is internal", fs.ErrNotExist, exception(run.InternalError), "internal worker error"},
		{"a payload that cannot be honored", fault.Malformedf("no image %q", "x"), exception(run.MalformedPayload), `no image "x"`},
		{"a dependency that is away", fault.Unavailablef(cause, "fetch image"), exception(run.ResourceUnavailable), "fetch image"},
		{"a task that asks for a retry", fault.Intermittentf("exit code 4"), exception(run.IntermittentTask), "exit code 4"},
		{"a host that goes away", fault.Shutdownf("spot"), exception(run.WorkerShutdown), "spot"},
		{"a verdict", fault.Failuref(cause, "mount x"), run.Resolution{Outcome: run.Failed}, "mount x"},
		{"a wrapped fault stays what it is", fmt.Errorf("prepare: %w", fault.Malformedf("m")), exception(run.MalformedPayload), "m"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := fault.Classify(tt.err)
			if got := f.Kind.Resolution(); got != tt.want || f.Message != tt.msg {
				t.Errorf("got %v, %q; want %v, %q", got, f.Message, tt.want, tt.msg)
			}
		})
	}
	if got := fault.Classify(nil); got != nil {
		t.Errorf("Classify(nil) = %v", got)
	}
	if err := fault.Unavailablef(cause, "fetch"); !errors.Is(err, cause) || err.Error() != "fetch: connection refused" {
		t.Errorf("the cause is lost in %v", err)
	}
}
