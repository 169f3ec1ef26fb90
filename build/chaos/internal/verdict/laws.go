package verdict

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// resolution: the last run is resolved, as it should be.
func resolution(t Task, broken func(int, string, ...any)) {
	if len(t.Runs) == 0 {
		broken(-1, "lost: it has no run")
		return
	}
	last := t.Runs[len(t.Runs)-1]
	switch {
	case last.State != "completed" && last.State != "failed" && last.State != "exception":
		broken(len(t.Runs)-1, "lost: it is %s", last.State)
	case last.State != t.Want.State || last.Reason != t.Want.Reason:
		broken(len(t.Runs)-1, "it is %s (%s), want %s (%s)", last.State, last.Reason, t.Want.State, t.Want.Reason)
	}
}

// retries: earlier runs were given up for a reason that leads to another one.
func retries(t Task, broken func(int, string, ...any)) {
	allowed := append([]string{expired, shutdown}, t.Want.Retried...)
	for i := range len(t.Runs) - 1 {
		if r := t.Runs[i]; r.State != "exception" || !slices.Contains(allowed, r.Reason) {
			broken(i, "it is %s (%s), and there is another run", r.State, r.Reason)
		}
	}
}

// execution: the commands of a run begin once at the most, and those of a run
// that is completed come to their end.
func execution(t Task, broken func(int, string, ...any)) {
	for i, r := range t.Runs {
		if r.Begun > 1 || r.Ended > 1 {
			broken(i, "doubled: its commands began %d times and ended %d times", r.Begun, r.Ended)
		}
		if r.State == "completed" && r.Ended == 0 {
			broken(i, "it is completed, and its commands have not come to their end")
		}
	}
}

// Line returns a numbered line as tasks print it.
func Line(i int) string { return "line " + strconv.Itoa(i) + " of the task" }

var numbered = regexp.MustCompile(`^line (\d+) of the task$`)

// Numbers returns the numbers of the numbered lines in a log.
func Numbers(log string) []int {
	var numbers []int
	for line := range strings.Lines(log) {
		if m := numbered.FindStringSubmatch(strings.TrimRight(line, "\r\n")); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	return numbers
}

// gapMark is what a log has in place of what did not fit on the disk.
var gapMark = regexp.MustCompile(`\[taskcluster:error\] (log truncated:|\d+ bytes of output are missing)`)

// logs: every log has the lines of its run from the first on, each once and in
// order, and that of a run which came to its end has all of them.
func logs(t Task, broken func(int, string, ...any)) {
	for i, r := range t.Runs {
		last := i == len(t.Runs)-1
		ended := r.State == "completed" || r.State == "failed"
		if !r.HasLog {
			if ended || last && r.State == "exception" && !t.Want.NoLog {
				broken(i, "there is no log")
			}
			continue
		}
		numbers := Numbers(r.Log)
		gaps := r.Cramped && gapMark.MatchString(r.Log)
		for at, n := range numbers {
			if before := previous(numbers, at); n != before+1 && (!gaps || n <= before) {
				broken(i, "its log has line %d after line %d", n, before)
				break
			}
		}
		if last && ended && !t.Want.Cut && !gaps && len(numbers) != t.Want.Lines {
			broken(i, "its log has %d lines, want %d", len(numbers), t.Want.Lines)
		}
		if last && !strings.Contains(r.Log, t.Want.Says) {
			broken(i, "its log lacks %q", t.Want.Says)
		}
		if n := strings.Count(r.Log, "=== Task Starting ==="); n > 1 {
			broken(i, "doubled: its log begins %d times", n)
		}
	}
}

func previous(numbers []int, at int) int {
	if at == 0 {
		return -1
	}
	return numbers[at-1]
}

// artifacts: the last run has what it should have, and nothing else.
func artifacts(t Task, broken func(int, string, ...any)) {
	i := len(t.Runs) - 1
	if i < 0 || t.Runs[i].State == "exception" {
		return
	}
	got := t.Runs[i].Artifacts
	for _, name := range slices.Sorted(maps.Keys(t.Want.Artifacts)) {
		switch sum, ok := got[name]; {
		case !ok:
			broken(i, "artifact %s is missing", name)
		case sum != t.Want.Artifacts[name]:
			broken(i, "artifact %s has other content than the task has written", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := t.Want.Artifacts[name]; !ok {
			broken(i, "nobody has asked for artifact %s", name)
		}
	}
}
