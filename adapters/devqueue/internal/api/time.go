package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Time is a point in time that the APIs write in milliseconds.
type Time struct{ time.Time }

// MarshalJSON writes "2006-01-02T15:04:05.000Z".
func (t Time) MarshalJSON() ([]byte, error) { return json.Marshal(Date(t.Time)) }

// UnmarshalJSON reads a date-time of RFC 3339 and drops what is finer than a
// millisecond.
func (t *Time) UnmarshalJSON(raw []byte) error {
	if err := json.Unmarshal(raw, &t.Time); err != nil {
		return fmt.Errorf("read time: %w", err)
	}
	t.Time = t.UTC().Truncate(time.Millisecond)
	return nil
}

// Date returns t as the APIs write it, in milliseconds.
func Date(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// Now returns the time in the precision of the APIs.
func Now() Time { return Time{time.Now().UTC().Truncate(time.Millisecond)} }
