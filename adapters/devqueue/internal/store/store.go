// Package store keeps values as JSON in an embedded database, in named
// buckets, ordered by key.
package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// DB is an open database file.
type DB struct{ bolt *bbolt.DB }

// ErrInUse is returned if another process holds the file.
var ErrInUse = errors.New("another process uses it")

// Open opens the database in the file, or creates it.
//
// Errors: ErrInUse, if that is so for a second.
func Open(file string) (*DB, error) {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{
		Timeout: time.Second,
		// The operating system holds what a killed process wrote, so only a
		// power cut could lose the last writes. A development queue trades that
		// for two orders of magnitude in speed.
		NoSync: true, NoFreelistSync: true, NoGrowSync: true,
		FreelistType: bbolt.FreelistMapType,
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		err = ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", file, err)
	}
	return &DB{db}, nil
}

// Close writes everything to disk and releases the file.
func (db *DB) Close() error {
	return errors.Join(db.bolt.Sync(), db.bolt.Close())
}

// Tx is a transaction. It is of no use once the function it was given to has
// returned.
type Tx struct{ bolt *bbolt.Tx }

// View runs fn in a transaction that only reads. It sees one state of all
// buckets, and any number of them run at once.
func (db *DB) View(fn func(*Tx) error) error {
	return db.bolt.View(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) })
}

// Update runs fn in a transaction that commits if fn returns nil. One runs at
// a time.
func (db *DB) Update(fn func(*Tx) error) error {
	return db.bolt.Update(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) })
}

// Bucket names a bucket with values of type T. The zero value is of no use.
type Bucket[T any] string

// Get returns the value at key and whether there is one.
func (b Bucket[T]) Get(tx *Tx, key string) (T, bool, error) {
	var value T
	bucket := tx.bolt.Bucket([]byte(b))
	if bucket == nil {
		return value, false, nil
	}
	raw := bucket.Get([]byte(key))
	if raw == nil {
		return value, false, nil
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return value, false, fmt.Errorf("read %s %q: %w", b, key, err)
	}
	return value, true, nil
}

// Put sets the value at key.
func (b Bucket[T]) Put(tx *Tx, key string, value T) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s %q: %w", b, key, err)
	}
	bucket, err := tx.bolt.CreateBucketIfNotExists([]byte(b))
	if err != nil {
		return fmt.Errorf("write %s: %w", b, err)
	}
	if err := bucket.Put([]byte(key), raw); err != nil {
		return fmt.Errorf("write %s %q: %w", b, key, err)
	}
	return nil
}

// Delete removes the value at key, if there is one.
func (b Bucket[T]) Delete(tx *Tx, key string) error {
	bucket := tx.bolt.Bucket([]byte(b))
	if bucket == nil {
		return nil
	}
	if err := bucket.Delete([]byte(key)); err != nil {
		return fmt.Errorf("delete %s %q: %w", b, key, err)
	}
	return nil
}

// Each calls fn for each key that begins with prefix and is greater than
// after, in order, until fn returns false or an error. The bucket must not be
// changed meanwhile.
func (b Bucket[T]) Each(tx *Tx, prefix, after string, fn func(key string, value T) (bool, error)) error {
	bucket := tx.bolt.Bucket([]byte(b))
	if bucket == nil {
		return nil
	}
	cursor := bucket.Cursor()
	first := max(prefix, after)
	for key, raw := cursor.Seek([]byte(first)); key != nil && bytes.HasPrefix(key, []byte(prefix)); key, raw = cursor.Next() {
		if after != "" && string(key) == after {
			continue
		}
		var value T
		if err := json.Unmarshal(raw, &value); err != nil {
			return fmt.Errorf("read %s %q: %w", b, key, err)
		}
		if more, err := fn(string(key), value); err != nil || !more {
			return err
		}
	}
	return nil
}

// Page is one part of a listing.
type Page[T any] struct {
	Keys   []string
	Values []T
	Next   string // key to go on after; empty at the end
}

// Page returns up to limit values whose keys begin with prefix and are greater
// than after.
func (b Bucket[T]) Page(tx *Tx, prefix, after string, limit int) (Page[T], error) {
	page := Page[T]{}
	err := b.Each(tx, prefix, after, func(key string, value T) (bool, error) {
		if len(page.Keys) == limit {
			page.Next = page.Keys[limit-1]
			return false, nil
		}
		page.Keys = append(page.Keys, key)
		page.Values = append(page.Values, value)
		return true, nil
	})
	return page, err
}
