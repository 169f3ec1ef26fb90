package enginetest

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"testing"

	"github.com/taskcluster/taskcluster-worker/ports/engine"
)

var hash = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func identifiesImage(ctx context.Context, tb testing.TB, h Harness) error {
	tb.Helper()
	var seen engine.Image
	for i := range 2 {
		r, _, err := run(ctx, tb, h, Step{Do: Print, Text: "x"})
		if err != nil {
			return err
		}
		imaged, ok := r.(engine.Imaged)
		if ok != h.Abilities().Images {
			return fmt.Errorf("results tell of an image: %t, but the engine declares %t", ok, h.Abilities().Images)
		}
		if !ok {
			return nil
		}
		got := imaged.Image()
		if !hash.MatchString(got.Hash) || got.ArchiveHash != "" && !hash.MatchString(got.ArchiveHash) {
			return fmt.Errorf("%+v does not identify an image", got)
		}
		if i > 0 && got != seen {
			return errors.New("one image is identified in two ways")
		}
		seen = got
	}
	return nil
}
