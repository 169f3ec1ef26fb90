package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/taskcluster/taskcluster-worker/domain/payload"
	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/engine"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// greeter is a plugin that takes part in every stage.
type greeter struct{ defects }

type defects struct {
	name, schema                                     string
	closeErr, runErr, salvageErr                     error
	interruptErr, resumeErr                          error
	hang, shared, leak, rename, doubled, refuseValid bool
	count                                            *atomic.Int64
	quit                                             chan struct{}
}

const greeting = `{"type": "object", "required": ["greeting"], "properties": {
  "greeting": {"title": "Greeting", "description": "What to say.", "type": "string"},
  "crowd": {"title": "Crowd", "description": "To whom.", "type": "array",
    "items": {"type": "object", "properties": {"who": {"title": "Who", "description": "The name.", "type": "string"}}}}}}`

func (g greeter) Name() string {
	switch {
	case g.name != "":
		return g.name
	case g.rename:
		return "greeter" + strconv.FormatInt(g.count.Add(1), 10)
	}
	return "greeter"
}

func (g greeter) PayloadSchema() []byte {
	switch g.schema {
	case "":
		return []byte(greeting)
	case "none":
		return nil
	}
	return []byte(g.schema)
}

func (g greeter) NewTaskPlugin(t plugin.Task) (plugin.TaskPlugin, error) {
	if g.refuseValid {
		return nil, errors.New("refused")
	}
	p := &greeterTask{greeter: g, task: t}
	return p, json.Unmarshal(t.Payload, &p.payload)
}

type greeterTask struct {
	greeter
	task    plugin.Task
	payload struct{ Greeting string }
	sandbox engine.Sandbox
}

func (p *greeterTask) ArtifactNames() []string {
	switch {
	case p.rename:
		return []string{"greeting" + strconv.FormatInt(p.count.Add(1), 10)}
	case p.doubled:
		return []string{"greeting", "greeting"}
	}
	return []string{"greeting"}
}

func (p *greeterTask) Prepare(ctx context.Context) error {
	if p.hang {
		<-p.quit
	}
	p.task.Log.Infof("%s", p.payload.Greeting)
	return ctx.Err()
}

func (p *greeterTask) BuildSandbox(_ context.Context, b engine.Builder) error {
	return b.SetEnv("GREETING", p.payload.Greeting)
}

func (p *greeterTask) Started(_ context.Context, s engine.Sandbox) error {
	p.sandbox = s
	if p.leak {
		go func() { <-p.quit }()
	}
	return nil
}

func (p *greeterTask) Resumed(context.Context, engine.Sandbox, time.Time) error { return p.resumeErr }

func (p *greeterTask) Stopped(ctx context.Context, _ engine.ResultSet) error {
	name := "greeting"
	if p.shared {
		name += strconv.FormatInt(p.count.Add(1), 10)
	}
	meta := artifact.Meta{Name: name}
	return errors.Join(p.runErr, p.task.Artifacts.Explain(ctx, meta, artifact.FileMissing, ""))
}

func (p *greeterTask) Salvage(_ context.Context, _ run.Reason, r engine.ResultSet) error {
	if r != nil && r.Result().Interrupted {
		return p.interruptErr
	}
	return p.salvageErr
}

func (p *greeterTask) Finished(ctx context.Context, _ run.Resolution, log plugin.Log) error {
	r, err := log.Open()
	if err != nil {
		return err
	}
	return errors.Join(ctx.Err(), r.Close())
}

func (p *greeterTask) Close() error { return p.closeErr }

// pickyCompiler compiles schemas that say nothing of refusal.
func pickyCompiler(schema []byte) (payload.Checker, error) {
	if strings.Contains(string(schema), "refuse compilation") {
		return nil, errors.New("refused")
	}
	return picky(strings.Contains(string(schema), "refuse all")), nil
}

type picky bool

func (p picky) Check([]byte) ([]payload.Violation, error) {
	if p {
		return []payload.Violation{{Path: "payload", Message: "refused"}}, nil
	}
	return nil, nil
}

func subject(d defects) Subject {
	d.count = new(atomic.Int64)
	return Subject{Plugin: greeter{d}, Payload: `{"greeting": "hello"}`, Compile: pickyCompiler}
}

func TestSound(t *testing.T) {
	Test(t, func(testing.TB) Subject { return subject(defects{}) })
}

func TestSoundWithoutSchema(t *testing.T) {
	Test(t, func(testing.TB) Subject { return subject(defects{schema: "none"}) })
}

// TestChecks shows that every check can fail, in every way it knows.
func TestChecks(t *testing.T) {
	broken := errors.New("broken")
	quit := make(chan struct{})
	defer close(quit)
	wrong := map[string][]defects{
		"NameIsASection": {{name: "no section"}, {rename: true}},
		"SchemaIsAFragment": {
			{schema: `{`},
			{schema: `{"type": "string"}`},
			{schema: `{"type": "object"}`},
			{schema: `{"type": "object", "properties": {"a": {}}, "required": ["b"]}`},
			{schema: `{"type": "object", "properties": {"a": {"title": "refuse compilation"}}}`},
			{schema: `{"type": "object", "properties": {"a": true}}`},
		},
		"SchemaIsDocumented": {
			{schema: `{`},
			{schema: strings.Replace(greeting, "To whom.", "", 1)},
			{schema: strings.Replace(greeting, `"title": "Who", `, "", 1)},
		},
		"SchemaAcceptsThePayload": {
			{schema: `{"title": "refuse all"}`}, {schema: `{"title": "refuse compilation"}`},
		},
		"NeedsNoHookBeforeClose":        {{closeErr: broken}, {refuseValid: true}},
		"LivesThroughARun":              {{runErr: broken}, {closeErr: broken}},
		"SalvagesOfNothing":             {{salvageErr: broken}, {refuseValid: true}},
		"SalvagesAfterInterruption":     {{salvageErr: broken}, {interruptErr: broken}, {closeErr: broken}, {refuseValid: true}},
		"LivesThroughARunThatIsResumed": {{resumeErr: broken}, {runErr: broken}, {refuseValid: true}},
		"StopsWithContext":              {{closeErr: broken}, {refuseValid: true}, {hang: true, quit: quit}},
		"ReservesTheSameNames":          {{rename: true}, {doubled: true}, {refuseValid: true}, {closeErr: broken}},
		"KeepsRunsApart":                {{shared: true}, {runErr: broken}},
		"LeavesNoGoroutines":            {{leak: true, quit: quit}, {runErr: broken}},
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if len(wrong[c.name]) == 0 {
				t.Fatal("no defect that this check should catch")
			}
			for i, d := range wrong[c.name] {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				if err := c.check(ctx, subject(d)); err == nil {
					t.Errorf("the check passed broken plugin %d", i)
				}
			}
		})
	}
}
