package parts

import (
	"testing"
	"time"
)

func TestBootTime(t *testing.T) {
	if got := bootTime(); got.IsZero() || got.After(time.Now()) || time.Since(got) > 10*365*24*time.Hour {
		t.Errorf("the machine was started at %v", got)
	}
}
