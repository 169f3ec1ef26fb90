package workerrunner

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// maxLine is how many bytes a line may have. A certificate has about one
// thousand.
const maxLine = 256 << 10

// maxLogged is how much of a line is logged, in bytes.
const maxLogged = 4 << 10

// message is what the runner sends, of any type.
type message struct {
	Type         string   `json:"type"`
	Capabilities []string `json:"capabilities"` // of welcome
	FinishTasks  bool     `json:"finish-tasks"` // of graceful-termination

	// Of new-credentials.
	ClientID    string `json:"client-id"`
	AccessToken string `json:"access-token"`
	Certificate string `json:"certificate"`
}

func (m message) credentials() task.Credentials {
	return task.Credentials{ClientID: m.ClientID, AccessToken: m.AccessToken, Certificate: m.Certificate}
}

// readLine returns the next line without its end. One that is too long is
// passed over, and so is one that has no end: whoever wrote it did not get to
// finish it.
func readLine(r *bufio.Reader) ([]byte, error) {
	for {
		line, err := r.ReadSlice('\n')
		if err == nil {
			return bytes.TrimSpace(line), nil
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if err != nil {
			return nil, err
		}
	}
}

// parse returns the message in a line, if there is one.
func parse(line []byte) (message, bool) {
	object, ok := bytes.CutPrefix(line, []byte("~"))
	if !ok || !bytes.HasPrefix(object, []byte("{")) {
		return message{}, false
	}
	var m message
	if err := json.Unmarshal(object, &m); err != nil || m.Type == "" {
		return message{}, false
	}
	return m, true
}

// clipped returns the head of a line, for the log. What looks like a message
// that went wrong may hold an access token.
func clipped(line []byte) string {
	if bytes.HasPrefix(line, []byte("~{")) {
		return "a message that is malformed"
	}
	return strings.ToValidUTF8(string(line[:min(len(line), maxLogged)]), "\uFFFD")
}
