package payload

// Dialect is the kind of payload that the author of a task wrote. Some scopes
// are named after it.
type Dialect string

// The dialects that workers of Taskcluster have.
const (
	GenericWorker Dialect = "generic-worker"
	DockerWorker  Dialect = "docker-worker"
)

// Translation is a payload in the worker's own form.
type Translation struct {
	Payload []byte
	Dialect Dialect
}

// Translator turns payloads of any dialect into the worker's own form. What it
// does not recognize it returns as it is. Violations are in the words of the
// payload as it was written; there is no translation then.
type Translator func(payload []byte) (Translation, []Violation, error)
