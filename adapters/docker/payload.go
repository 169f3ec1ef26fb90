package docker

import (
	"encoding/json"
	"strings"

	"github.com/taskcluster/taskcluster-worker/domain/fault"
	"github.com/taskcluster/taskcluster-worker/domain/task"
	"github.com/taskcluster/taskcluster-worker/ports/fetch"
)

// payload is the engine's part of task.payload.
type payload struct {
	Image        image        `json:"image"`
	Command      [][]string   `json:"command,omitempty"`
	Entrypoint   *[]string    `json:"entrypoint,omitempty"` // nil for the image's
	User         string       `json:"user,omitempty"`
	WorkDir      string       `json:"workdir,omitempty"`
	TTY          bool         `json:"tty,omitempty"`
	Network      Egress       `json:"network,omitempty"`
	Capabilities capabilities `json:"capabilities,omitzero"`
}

type capabilities struct {
	Privileged     bool    `json:"privileged,omitempty"`
	DisableSeccomp bool    `json:"disableSeccomp,omitempty"`
	Ptrace         bool    `json:"ptrace,omitempty"`
	Devices        devices `json:"devices,omitzero"`
}

type devices struct {
	KVM           bool `json:"kvm,omitempty"`
	LoopbackVideo bool `json:"loopbackVideo,omitempty"`
	LoopbackAudio bool `json:"loopbackAudio,omitempty"`
	SharedMemory  bool `json:"hostSharedMemory,omitempty"`
	GPUs          int  `json:"gpus,omitempty"`
}

// image is payload.image.
type image struct{ ref ImageRef }

// UnmarshalJSON implements json.Unmarshaler.
func (i *image) UnmarshalJSON(raw []byte) error {
	if strings.HasPrefix(string(raw), `"`) {
		return json.Unmarshal(raw, &i.ref.Name)
	}
	var archive struct {
		TaskID    task.ID `json:"taskId"`
		Namespace string  `json:"namespace"`
		Artifact  string  `json:"artifact"`
		URL       string  `json:"url"`
		SHA256    string  `json:"sha256"`
	}
	if err := json.Unmarshal(raw, &archive); err != nil {
		return err
	}
	i.ref.Archive = fetch.Reference(archive)
	return nil
}

// MarshalJSON implements json.Marshaler, for names alone.
func (i image) MarshalJSON() ([]byte, error) { return json.Marshal(i.ref.Name) }

func parsePayload(raw []byte) (payload, error) {
	var p payload
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, fault.Malformedf("payload: %v", err)
	}
	for _, argv := range p.Command {
		for _, arg := range argv {
			if strings.Contains(arg, "\x00") {
				return p, fault.Malformedf("payload.command: an argument contains a NUL character")
			}
		}
	}
	return p, nil
}
