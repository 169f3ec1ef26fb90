package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoutes(t *testing.T) {
	for _, tt := range []struct {
		route, path string
		want        map[string]string // nil: no match
	}{
		{"/ping", "ping", map[string]string{}},
		{"/ping", "pong", nil},
		{"/task/<taskId>", "task/a", map[string]string{"taskId": "a"}},
		{"/task/<taskId>", "task/a/b", nil},
		{"/task/<taskId>", "task/", nil},
		{"/task/<taskId>/artifacts/<name*>", "task/a/artifacts/x/y%2Fz", map[string]string{"taskId": "a", "name": "x/y/z"}},
		{"/task/<taskId>/artifacts/<name*>", "task/a/artifacts/a+b%20c", map[string]string{"taskId": "a", "name": "a+b c"}},
		{"/task/<taskId>/artifacts/<name*>", "task/a/artifacts/%zz", nil},
		{"/workers/<pool*>:/<group>/<id>", "workers/p%2Fw:/g/i", map[string]string{"pool": "p/w", "group": "g", "id": "i"}},
		{"/workers/<pool*>:/<group>/<id>", "workers/p/w:/g/i", map[string]string{"pool": "p/w", "group": "g", "id": "i"}},
		{"/workers/<pool*>:/<group>/<id>", "workers/p/w/g/i", nil},
		{"/clients/", "clients/", map[string]string{}},
	} {
		got, ok := parseRoute(tt.route).match(strings.Split(tt.path, "/"))
		if ok != (tt.want != nil) {
			t.Errorf("%s matches %s: %v", tt.route, tt.path, ok)
			continue
		}
		if ok {
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s on %s (-want +got):\n%s", tt.route, tt.path, diff)
			}
		}
	}
}

// FuzzRoute checks that no path makes matching panic or lose a part of it.
func FuzzRoute(f *testing.F) {
	f.Add("task/a/runs/0/artifacts/x/y")
	f.Add("//:/%/")
	routes := []route{
		parseRoute("/task/<taskId>/runs/<runId>/artifacts/<name*>"),
		parseRoute("/workers/<pool*>:/<group>/<id>"),
	}
	f.Fuzz(func(t *testing.T, path string) {
		for _, r := range routes {
			if params, ok := r.match(strings.Split(path, "/")); ok && len(params) != 3 {
				t.Errorf("%q gives %v", path, params)
			}
		}
	})
}
