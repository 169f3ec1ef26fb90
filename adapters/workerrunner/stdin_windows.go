package workerrunner

import "os"

// Stdin returns the standard input of this process.
func Stdin() (*os.File, error) { return os.Stdin, nil }
