package taskcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/taskcluster/taskcluster-worker/domain/task"
)

// StorageType says how the content of artifacts is stored.
type StorageType string

// The ways a queue can store content.
const (
	S3     StorageType = "s3"     // in a bucket, through signed URLs
	Object StorageType = "object" // in the object service
)

// Config says which deployment to work for, and as whom. Durations that are
// zero get the default that is given with them.
type Config struct {
	RootURL     string           // of the deployment, such as https://tc.example.com
	Credentials task.Credentials // the worker's own, until others are set
	As          *Client          // whose credentials take their place, and are always the same; may be nil
	TaskQueueID string           // "<provisioner>/<worker type>", the worker's pool
	WorkerGroup string
	WorkerID    string
	StorageType StorageType // S3 if empty

	// CallTimeout bounds one attempt of any call but claimWork and transfers
	// of content; 30 seconds.
	CallTimeout time.Duration

	// PollTimeout bounds one claimWork, which queues answer within 20 seconds
	// when nothing is pending; 30 seconds.
	PollTimeout time.Duration

	// CancelGrace is how long a canceled Claim waits for the queue's answer
	// before it closes the connection; half a second. The queue forgets a request
	// whose connection is closed, but if it grants a claim in the same moment,
	// that claim is lost until it expires. The longer the grace, the surer it
	// is that an answer under way arrives, and the later are the reports of a
	// worker that is stopped, which wait for it.
	CancelGrace time.Duration

	// StallTimeout is how long the transfer of an artifact may make no
	// progress; 1 minute. Its whole time is not bounded.
	StallTimeout time.Duration

	// RetryFor is for how long a call that fails for a transient reason is
	// repeated, unless it takes longer to make five attempts; 5 minutes.
	// Resolutions are repeated until their context is done.
	RetryFor time.Duration
}

// withDefaults returns c with values for what is zero, or an error that names
// what is missing or wrong.
func (c Config) withDefaults() (Config, error) {
	u, err := url.Parse(c.RootURL)
	switch {
	case c.RootURL == "":
		return c, errors.New("root URL is missing")
	case err != nil:
		return c, fmt.Errorf("root URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return c, fmt.Errorf("root URL %q: not an http or https URL", c.RootURL)
	}
	if cert := c.Credentials.Certificate; cert != "" && !json.Valid([]byte(cert)) {
		return c, errors.New("certificate of the credentials: not JSON")
	}
	switch c.StorageType {
	case S3, Object:
	case "":
		c.StorageType = S3
	default:
		return c, fmt.Errorf("storage type %q: neither %q nor %q", c.StorageType, S3, Object)
	}
	for _, d := range []struct {
		value *time.Duration
		zero  time.Duration
	}{
		{&c.CallTimeout, 30 * time.Second},
		{&c.PollTimeout, 30 * time.Second},
		{&c.CancelGrace, 500 * time.Millisecond},
		{&c.StallTimeout, time.Minute},
		{&c.RetryFor, 5 * time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	return c, nil
}
