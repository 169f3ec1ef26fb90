package api

import (
	"testing"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

func TestExpressions(t *testing.T) {
	create := AllOf{
		Each{For: "scope", In: "scopes", Scope: "<scope>"},
		Scope("queue:scheduler-id:<scheduler>"),
		AnyOf{Each{For: "priority", In: "priorities", Scope: "queue:create-task:<priority>:<queue>"}},
	}
	params := Params{
		"scopes": []string{"a:<queue>", "b"}, "scheduler": "-", "priorities": []string{"high", "low"}, "queue": "x/y",
	}
	required, ok := create.render(params)
	if !ok {
		t.Fatal("parameters are missing")
	}
	for _, tt := range []struct {
		name string
		have task.Scopes
		want bool
	}{
		{"all that is needed", task.Scopes{"a:<queue>", "b", "queue:scheduler-id:-", "queue:create-task:low:x/y"}, true},
		{"a star", task.Scopes{"*"}, true},
		{"the other priority", task.Scopes{"a:*", "b", "queue:scheduler-id:*", "queue:create-task:high:*"}, true},
		{"a value is no template", task.Scopes{"a:x/y", "b", "queue:scheduler-id:-", "queue:create-task:low:x/y"}, false},
		{"one of the list is missing", task.Scopes{"b", "queue:scheduler-id:-", "queue:create-task:low:x/y"}, false},
		{"no priority", task.Scopes{"a:*", "b", "queue:scheduler-id:-", "queue:create-task:lowest:x/y"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := required.satisfied(tt.have); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
	const want = `"queue:scheduler-id:-"`
	if got := text(missing(required, task.Scopes{"a:*", "b", "queue:create-task:*"})); got != want {
		t.Errorf("missing %s, want %s", got, want)
	}
	delete(params, "queue")
	if _, ok := create.render(params); ok {
		t.Error("rendered without all parameters")
	}
}
