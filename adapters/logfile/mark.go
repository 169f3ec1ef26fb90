package logfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/taskcluster/taskcluster-worker/ports/tasklog"
)

// mark says which position of the engine's output a log of some length is at.
type mark struct {
	length int64
	at     tasklog.Position
}

// marks is the file of the latest marks of a log. Two of them take turns, so
// that one is whole whenever the process ends.
type marks struct {
	file *os.File
	next uint64 // number of the next mark
	buf  [markSize]byte
}

// markSize is the size of a mark in the file: number, length and position, and
// a checksum over the three.
const markSize = 3*8 + 4

// createMarks makes a file that marks an empty log.
func createMarks(name string) (*marks, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // made of the configuration
	if err != nil {
		return nil, err
	}
	m := &marks{file: file, next: 1}
	// Both places are written, so that a disk which is full later takes them.
	if err := errors.Join(m.set(mark{}), m.set(mark{})); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return m, nil
}

// openMarks opens a file that another process has left, and returns the last
// mark in it.
//
// Errors: fs.ErrNotExist, also if there is no mark in it.
func openMarks(name string) (*marks, mark, error) {
	file, err := os.OpenFile(name, os.O_RDWR, 0) //nolint:gosec // made of the configuration
	if err != nil {
		return nil, mark{}, err
	}
	var b [2 * markSize]byte
	n, err := file.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, mark{}, errors.Join(err, file.Close())
	}
	last, number, ok := latest(b[:n])
	if !ok {
		return nil, mark{}, errors.Join(fmt.Errorf("%s holds no position: %w", name, fs.ErrNotExist), file.Close())
	}
	return &marks{file: file, next: number + 1}, last, nil
}

// set stores a mark.
func (m *marks) set(k mark) error {
	encode(m.buf[:], m.next, k)
	if _, err := m.file.WriteAt(m.buf[:], int64(m.next%2)*markSize); err != nil {
		return err
	}
	m.next++
	return nil
}

func encode(b []byte, number uint64, k mark) {
	binary.LittleEndian.PutUint64(b, number)
	binary.LittleEndian.PutUint64(b[8:], uint64(k.length)) //nolint:gosec // decoded alike
	binary.LittleEndian.PutUint64(b[16:], uint64(k.at))    //nolint:gosec // decoded alike
	binary.LittleEndian.PutUint32(b[24:], crc32.ChecksumIEEE(b[:24]))
}

// latest returns the mark with the greatest number.
func latest(b []byte) (last mark, number uint64, ok bool) {
	for ; len(b) >= markSize; b = b[markSize:] {
		n := binary.LittleEndian.Uint64(b)
		k := mark{
			length: int64(binary.LittleEndian.Uint64(b[8:])),             //nolint:gosec // encoded alike
			at:     tasklog.Position(binary.LittleEndian.Uint64(b[16:])), //nolint:gosec // encoded alike
		}
		valid := binary.LittleEndian.Uint32(b[24:]) == crc32.ChecksumIEEE(b[:24]) && k.length >= 0 && k.at >= 0
		if valid && n > number {
			last, number, ok = k, n, true
		}
	}
	return last, number, ok
}
