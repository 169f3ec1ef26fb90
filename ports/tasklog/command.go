package tasklog

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Executing writes the line that precedes the output of a command. index counts
// from 0.
func (l *Log) Executing(index int, argv []string) {
	var quoted strings.Builder
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false) // "a && b" should read as it was written
	if err := encoder.Encode(argv); err != nil {
		fmt.Fprintf(&quoted, "%q", argv)
	}
	l.Infof("Executing command %d: %s", index, quoted.String())
}

// Outcome is how a command ended, for the block of lines after its output.
type Outcome struct {
	ExitCode   int    // -1 if it did not exit by itself
	Signal     string // what ended it otherwise, such as "killed"; empty if it exited
	User       time.Duration
	Kernel     time.Duration
	Wall       time.Duration
	PeakMemory int64  // bytes; 0 if it is not known
	Result     string // SUCCEEDED, FAILED or ABORTED
}

// Executed writes the block of lines that follows the output of a command.
func (l *Log) Executed(o Outcome) {
	code := strconv.Itoa(o.ExitCode)
	if o.Signal != "" {
		code += " (" + o.Signal + ")"
	}
	memory := ""
	if o.PeakMemory > 0 {
		memory = fmt.Sprintf(" Peak Memory: %d KiB\n", o.PeakMemory/1024)
	}
	l.Infof("   Exit Code: %s\n   User Time: %v\n Kernel Time: %v\n   Wall Time: %v\n%s      Result: %s",
		code, o.User, o.Kernel, o.Wall, memory, o.Result)
}
