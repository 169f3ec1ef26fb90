package queue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestAWorkerThatLeavesDoesNotTakeAHintAlong(t *testing.T) {
	p := newPending()
	_, first, leave := p.tryTake("q", 1)
	_, second, _ := p.tryTake("q", 1)
	p.push("q", &hint{taskID: "a"})
	if !closed(first) || closed(second) {
		t.Fatal("a hint wakes the one who has waited longest, and nobody else")
	}
	leave()
	if !closed(second) {
		t.Error("the hint is left and nobody knows")
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestHintsOfOtherTaskQueuesWakeNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPending()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p.push("other", &hint{taskID: "a"})
		if taken := p.take(ctx, "q", 1); len(taken) != 0 {
			t.Errorf("took %d hints", len(taken))
		}
		if n := p.count("other"); n != 1 {
			t.Errorf("%d hints are left", n)
		}
		p.remove("other", "a")
		p.remove("other", "unknown")
		if n := p.count("other"); n != 0 {
			t.Errorf("%d hints are left", n)
		}
	})
}

func TestAHintTakesThePlaceOfAnEarlierOne(t *testing.T) {
	p := newPending()
	p.push("q", &hint{taskID: "a", run: 0})
	p.push("q", &hint{taskID: "a", run: 1})
	taken := p.take(t.Context(), "q", 5)
	if len(taken) != 1 || taken[0].run != 1 {
		t.Errorf("took %+v", taken)
	}
}
