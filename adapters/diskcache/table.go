package diskcache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// version is that of the table's form.
const version = 1

// table is the content of the file.
type table struct {
	Version int      `json:"version"`
	Copies  []*entry `json:"copies"`
}

// readTable returns what is in the table, or nothing if there is none.
func readTable(file string) ([]*entry, error) {
	content, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var t table
	if err := json.Unmarshal(content, &t); err != nil {
		return nil, err
	}
	if t.Version != version {
		return nil, fmt.Errorf("its version is %d, not %d", t.Version, version)
	}
	seen := map[string]bool{}
	for i, e := range t.Copies {
		if e == nil || e.Volume == "" || seen[e.Volume] {
			return nil, fmt.Errorf("entry %d makes no sense", i)
		}
		seen[e.Volume] = true
	}
	return t.Copies, nil
}

// writeTable replaces the table, so that at any time there is the old one or the
// new one.
func writeTable(file string, copies []*entry) (err error) {
	content, err := json.MarshalIndent(table{Version: version, Copies: copies}, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	next := file + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(next, file)
}
