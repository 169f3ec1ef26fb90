package parts

import (
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/artifacts"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/caches"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/env"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/exitstatus"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/maxruntime"
	"github.com/taskcluster/taskcluster-worker/adapters/plugins/tasklog"
	"github.com/taskcluster/taskcluster-worker/apps/internal/section"
	"github.com/taskcluster/taskcluster-worker/ports/plugin"
)

// Plugins are those that the app knows.
type Plugins struct {
	enabled  []plugin.Plugin
	disabled []plugin.Plugin // tasks that ask for them are refused
}

// InOrder lists the plugins in the order in which their hooks run. The exit code
// is judged before artifacts are missed, and the log is stored last, since every
// other plugin may write to it.
func InOrder(c section.Linux, e *env.Plugin, m *maxruntime.Plugin, x *exitstatus.Plugin, a *artifacts.Plugin, k *caches.Plugin, l *tasklog.Plugin) Plugins {
	var p Plugins
	for _, each := range []struct {
		plugin  plugin.Plugin
		enabled bool
	}{
		{e, true},
		{m, true},
		{x, c.ExitStatus.Enabled},
		{a, c.Artifacts.Enabled},
		{k, c.Caches.Enabled && hasVolumes(c)},
		{l, true},
	} {
		if each.enabled {
			p.enabled = append(p.enabled, each.plugin)
		} else {
			p.disabled = append(p.disabled, each.plugin)
		}
	}
	return p
}
