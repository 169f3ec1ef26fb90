package store_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskcluster/taskcluster-worker/adapters/devqueue/internal/store"
)

type fruit struct{ Colour string }

const fruits store.Bucket[fruit] = "fruits"

func open(t *testing.T, file string) *store.DB {
	t.Helper()
	db, err := store.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestValuesSurviveReopening(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	db := open(t, file)
	err := db.Update(func(tx *store.Tx) error { return fruits.Put(tx, "lime", fruit{"green"}) })
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, file)
	defer db.Close()
	err = db.View(func(tx *store.Tx) error {
		got, ok, err := fruits.Get(tx, "lime")
		if want := (fruit{"green"}); got != want || !ok {
			t.Errorf("got %v, %v, want %v", got, ok, want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOneProcessHoldsTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	db := open(t, file)
	defer db.Close()
	second, err := store.Open(file)
	if err == nil {
		_ = second.Close()
	}
	if !errors.Is(err, store.ErrInUse) {
		t.Errorf("got error %v, want %v", err, store.ErrInUse)
	}
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	failure := errors.New("failure")
	err := db.Update(func(tx *store.Tx) error {
		if err := fruits.Put(tx, "lime", fruit{"green"}); err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("got error %v, want %v", err, failure)
	}
	err = db.View(func(tx *store.Tx) error {
		if _, ok, err := fruits.Get(tx, "lime"); ok || err != nil {
			t.Errorf("found %v, %v", ok, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPages(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	err := db.Update(func(tx *store.Tx) error {
		for _, key := range []string{"b/1", "a/3", "a/1", "a/2", "a/4", "c"} {
			if err := fruits.Put(tx, key, fruit{key}); err != nil {
				return err
			}
		}
		return fruits.Delete(tx, "a/4")
	})
	if err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for after := ""; ; {
		var page store.Page[fruit]
		err := db.View(func(tx *store.Tx) (err error) {
			page, err = fruits.Page(tx, "a/", after, 2)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page.Keys)
		if after = page.Next; after == "" {
			break
		}
	}
	if diff := cmp.Diff([][]string{{"a/1", "a/2"}, {"a/3"}}, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}
