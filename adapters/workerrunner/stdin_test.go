package workerrunner

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// asReader makes the test binary read its standard input and close it.
const asReader = "WORKERRUNNER_TEST_AS_READER"

func reader(out io.Writer) {
	in, err := Stdin()
	if err != nil {
		fmt.Fprintln(out, err)
		return
	}
	line := make([]byte, 6)
	_, err = io.ReadFull(in, line)
	fmt.Fprintln(out, string(line), err)
	ended := make(chan error)
	go func() {
		_, err := in.Read(line)
		ended <- err
	}()
	fmt.Fprintln(out, in.Close())
	fmt.Fprintln(out, <-ended != nil)
}

func TestClosingStdinEndsRead(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asReader+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.WriteString(in, "a word"); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, t.Output()
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	if want := "a word <nil>\n<nil>\ntrue\n"; out.String() != want {
		t.Errorf("process wrote %q, want %q", out.String(), want)
	}
}
