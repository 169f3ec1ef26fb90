package artifacts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// readError is an error of the sandbox's file, as opposed to one of the store.
type readError struct{ err error }

func (e *readError) Error() string { return "read file of artifact: " + e.err.Error() }

func (e *readError) Unwrap() error { return e.err }

// changedError says that a file is not as it was when it was found.
type changedError struct{ was, is int64 }

func (e *changedError) Error() string {
	return fmt.Sprintf("it has changed from %d to %d bytes", e.was, e.is)
}

// opener returns a function that opens a file which must hold size bytes.
func opener(fsys fs.FS, at string, size int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		f, err := fsys.Open(at)
		if err != nil {
			return nil, &readError{err}
		}
		return &exact{f: f, size: size}, nil
	}
}

// exact reads a file up to the size it had. It fails where the file has become
// shorter or longer, and never tries to read what is beyond: that might have no
// end, or never come.
type exact struct {
	f    fs.File
	size int64
	read int64
}

func (e *exact) Read(p []byte) (int, error) {
	left := e.size - e.read
	if left == 0 {
		return 0, e.end()
	}
	n, err := e.f.Read(p[:min(int64(len(p)), left)])
	e.read += int64(n)
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		return n, &readError{err}
	case e.read < e.size:
		return n, &readError{&changedError{was: e.size, is: e.read}}
	default:
		return n, e.end()
	}
}

func (e *exact) end() error {
	stat, err := e.f.Stat()
	switch {
	case err != nil:
		return &readError{err}
	case stat.Size() != e.size:
		return &readError{&changedError{was: e.size, is: stat.Size()}}
	}
	return io.EOF
}

func (e *exact) Close() error { return e.f.Close() }
