package native

import (
	"strings"
	"testing"
	"time"
)

func TestKillLeavesTimeToEnd(t *testing.T) {
	e := open(t, Config{Grace: time.Hour})
	log := &safeBuffer{}
	s := start(t, e, log, []string{"sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; sleep 1000000 & wait"}, []string{"echo", "later"})
	log.await(t, "ready\n")
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := wait(t, s).Result()
	if r.Success || !r.Killed || r.ExitCode != 0 {
		t.Errorf("the result is %+v", r)
	}
	if !strings.Contains(log.String(), "bye\n") || strings.Contains(log.String(), "later\n") {
		t.Errorf("the log is:\n%s", log)
	}
}
