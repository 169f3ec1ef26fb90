package journalfile

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/run"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/artifact"
	"github.com/taskcluster/taskcluster-worker/ports/journal"
	"github.com/taskcluster/taskcluster-worker/ports/queue"
)

// header is how many bytes are before each record: its length and its CRC-32C,
// both little-endian.
const header = 8

// maxRecord is how many bytes a record may have. Definitions have 1 MiB.
const maxRecord = 16 << 20

// The kinds of records.
const (
	claimKind     = "claim"
	leasedKind    = "leased"
	reachedKind   = "reached"
	startedKind   = "started"
	resolvingKind = "resolving"
	uploadedKind  = "uploaded"
	heldKind      = "held"
	releasedKind  = "released"
)

// record is a record as it is stored. States and outcomes are stored by name,
// since the next process may be of a version that numbers them otherwise.
type record struct {
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body"`
}

type claimBody struct {
	Task        task.ID          `json:"task"`
	Run         int              `json:"run"`
	Definition  []byte           `json:"definition"` // kept to the byte
	TakenUntil  time.Time        `json:"takenUntil"`
	Credentials task.Credentials `json:"credentials"`
}

func claimOf(s journal.Saved) claimBody {
	return claimBody{s.Run.Task, s.Run.Run, s.Definition, s.TakenUntil, s.Credentials}
}

type resolvingBody struct {
	Outcome string     `json:"outcome"`
	Reason  run.Reason `json:"reason,omitempty"`
}

// encode returns the kind of r and what is stored of it.
func encode(r journal.Record) (kind string, body any) {
	switch r := r.(type) {
	case journal.Leased:
		return leasedKind, r
	case journal.Reached:
		return reachedKind, r.State.String()
	case journal.Started:
		return startedKind, r.At
	case journal.Resolving:
		return resolvingKind, resolvingBody{r.Resolution.Outcome.String(), r.Resolution.Reason}
	case journal.Uploaded:
		return uploadedKind, uploadedBody{r.Artifact.Name, r.Artifact.ContentType, r.Artifact.Expires, r.Artifact.SHA256, r.Artifact.Size}
	case journal.Held:
		return heldKind, r
	case journal.Released:
		return releasedKind, r
	default:
		return "", nil
	}
}

type uploadedBody struct {
	Name        string    `json:"name"`
	ContentType string    `json:"contentType"`
	Expires     time.Time `json:"expires"`
	SHA256      string    `json:"sha256"`
	Size        int64     `json:"size"`
}

// decode returns what encode was given, or nil for a kind that is not known.
func decode(r record) (journal.Record, error) {
	switch r.Kind {
	case leasedKind:
		return body[journal.Leased](r)
	case startedKind:
		at, err := body[time.Time](r)
		return journal.Started{At: at}, err
	case heldKind:
		return body[journal.Held](r)
	case releasedKind:
		return body[journal.Released](r)
	case uploadedKind:
		u, err := body[uploadedBody](r)
		meta := artifact.Meta{Name: u.Name, ContentType: u.ContentType, Expires: u.Expires}
		return journal.Uploaded{Artifact: journal.Artifact{Meta: meta, SHA256: u.SHA256, Size: u.Size}}, err
	case reachedKind:
		name, err := body[string](r)
		if err != nil {
			return nil, err
		}
		state, ok := named(name, run.Claimed, run.Done)
		if !ok {
			return nil, fmt.Errorf("no such state: %q", name)
		}
		return journal.Reached{State: state}, nil
	case resolvingKind:
		b, err := body[resolvingBody](r)
		if err != nil {
			return nil, err
		}
		outcome, ok := named(b.Outcome, run.Undecided, run.Abandoned)
		if !ok {
			return nil, fmt.Errorf("no such outcome: %q", b.Outcome)
		}
		return journal.Resolving{Resolution: run.Resolution{Outcome: outcome, Reason: b.Reason}}, nil
	default:
		return nil, nil //nolint:nilnil // it is passed over
	}
}

// body reads what is stored of a record.
func body[T any](r record) (T, error) {
	var b T
	err := json.Unmarshal(r.Body, &b)
	return b, err
}

// named returns the value from first to last that has a name.
func named[T interface {
	~uint8
	String() string
}](name string, first, last T) (T, bool) {
	for v := first; v <= last; v++ {
		if v.String() == name {
			return v, true
		}
	}
	return 0, false
}

// frame returns a record as it is in a file.
func frame(kind string, body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err == nil {
		raw, err = json.Marshal(record{kind, raw})
	}
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	if len(raw) > maxRecord {
		return nil, fmt.Errorf("encode %s: %d bytes are too many", kind, len(raw))
	}
	framed := make([]byte, header, header+len(raw))
	binary.LittleEndian.PutUint32(framed, uint32(len(raw))) //nolint:gosec // G115: checked above
	binary.LittleEndian.PutUint32(framed[4:], crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)))
	return append(framed, raw...), nil
}

var (
	errTorn       = errors.New("record is damaged")
	errUnfinished = errors.New("record ends early")
)

// next returns the first record of content and its length with its header.
func next(content []byte) (record, int, error) {
	if len(content) < header {
		return record{}, 0, errUnfinished
	}
	length := binary.LittleEndian.Uint32(content)
	if length > maxRecord {
		return record{}, 0, errTorn
	}
	if int(length) > len(content)-header {
		return record{}, 0, errUnfinished
	}
	raw := content[header : header+int(length)]
	if crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(content[4:]) {
		return record{}, 0, errTorn
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return record{}, 0, fmt.Errorf("%w: %w", errTorn, err)
	}
	return r, header + int(length), nil
}

// replay returns the run that content is about, and how many bytes of content
// are good. It fails if the claim is not.
func replay(content []byte) (journal.Saved, int, error) {
	r, good, err := next(content)
	if err != nil {
		return journal.Saved{}, 0, fmt.Errorf("read claim: %w", err)
	}
	if r.Kind != claimKind {
		return journal.Saved{}, 0, fmt.Errorf("read claim: %w: it is a record of kind %q", errTorn, r.Kind)
	}
	c, err := body[claimBody](r)
	if err != nil {
		return journal.Saved{}, 0, fmt.Errorf("read claim: %w: %w", errTorn, err)
	}
	if c.Task == "" || c.Run < 0 {
		return journal.Saved{}, 0, fmt.Errorf("read claim: %w: it names no run", errTorn)
	}
	s := journal.Saved{Saved: queue.Saved{
		Run: task.RunID{Task: c.Task, Run: c.Run}, Definition: slices.Clip(c.Definition),
		TakenUntil: c.TakenUntil, Credentials: c.Credentials,
	}}
	records, n := decodeAll(content[good:])
	return s.After(records...), good + n, nil
}

// decodeAll returns the records of content, up to the first one that is
// damaged, and how many bytes those are.
func decodeAll(content []byte) (records []journal.Record, good int) {
	for good < len(content) {
		r, n, err := next(content[good:])
		if err != nil {
			break
		}
		// What is whole, and makes no sense nevertheless, is of a later version.
		if known, err := decode(r); err == nil && known != nil {
			records = append(records, known)
		}
		good += n
	}
	return records, good
}
