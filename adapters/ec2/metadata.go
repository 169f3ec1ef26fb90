// Package ec2 is the machine in EC2 that a worker runs on: who it is, by its
// metadata; when it goes away; and its disks.
package ec2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Config says where the metadata is.
type Config struct {
	// Endpoint is the URL of the instance metadata service. If it is empty, it
	// is that of AWS_EC2_METADATA_SERVICE_ENDPOINT, or the one that machines in
	// EC2 have.
	Endpoint string
}

// Metadata is the instance metadata service, in its second version: it answers
// only whoever has asked for a token. Its methods are safe for concurrent use.
type Metadata struct{ client *imds.Client }

// NewMetadata returns the service, without calling it. The returned function
// closes connections that are kept open for later calls.
func NewMetadata(cfg Config) (*Metadata, func()) {
	transport := &http.Transport{ // there is no proxy on the way
		DialContext:           (&net.Dialer{Timeout: time.Second}).DialContext,
		ResponseHeaderTimeout: time.Second,
		MaxIdleConnsPerHost:   8,
	}
	return &Metadata{imds.New(imds.Options{
		Endpoint: cfg.Endpoint, EnableFallback: aws.FalseTernary, HTTPClient: &http.Client{Transport: transport},
	})}, transport.CloseIdleConnections
}

// maxDocument is how much of an answer is read. User data has 16 KiB at most.
const maxDocument = 1 << 20

// errAbsent says that the machine has no such metadata.
var errAbsent = errors.New("there is no such metadata")

// get returns the metadata at a path below meta-data.
//
// Errors: errAbsent; and whatever keeps the service from answering.
func (m *Metadata) get(ctx context.Context, path string, options ...func(*imds.Options)) (string, error) {
	out, err := m.client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path}, options...)
	if err != nil {
		return "", explain(path, err)
	}
	return read(path, out.Content)
}

// dynamic returns what is at a path below dynamic. Its errors are those of get.
func (m *Metadata) dynamic(ctx context.Context, path string) (string, error) {
	out, err := m.client.GetDynamicData(ctx, &imds.GetDynamicDataInput{Path: path})
	if err != nil {
		return "", explain(path, err)
	}
	return read(path, out.Content)
}

// userData returns the user data. Its errors are those of get.
func (m *Metadata) userData(ctx context.Context) (string, error) {
	out, err := m.client.GetUserData(ctx, nil)
	if err != nil {
		return "", explain("user data", err)
	}
	return read("user data", out.Content)
}

func explain(path string, err error) error {
	if e, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && e.HTTPStatusCode() == http.StatusNotFound {
		err = errAbsent
	}
	return fmt.Errorf("instance metadata: %s: %w", path, err)
}

func read(path string, content io.ReadCloser) (string, error) {
	defer content.Close()
	text, err := io.ReadAll(io.LimitReader(content, maxDocument))
	if err != nil {
		return "", explain(path, err)
	}
	return string(text), nil
}

// Instance is what tells this machine from others.
type Instance struct {
	ID               string
	Type             string // such as m5.large
	Image            string
	Region           string
	AvailabilityZone string
	PublicIP         string // empty if it has none
}

// Instance returns what this machine is.
func (m *Metadata) Instance(ctx context.Context) (Instance, error) {
	document, err := m.dynamic(ctx, documentPath)
	if err != nil {
		return Instance{}, err
	}
	var d struct {
		InstanceID       string `json:"instanceId"`
		InstanceType     string `json:"instanceType"`
		ImageID          string `json:"imageId"`
		Region           string `json:"region"`
		AvailabilityZone string `json:"availabilityZone"`
	}
	if err := json.Unmarshal([]byte(document), &d); err != nil || d.InstanceID == "" {
		return Instance{}, errors.New("instance identity document: is not understood")
	}
	ip, err := m.get(ctx, "public-ipv4")
	if err != nil && !errors.Is(err, errAbsent) {
		return Instance{}, err
	}
	return Instance{
		ID: d.InstanceID, Type: d.InstanceType, Image: d.ImageID,
		Region: d.Region, AvailabilityZone: d.AvailabilityZone, PublicIP: ip,
	}, nil
}

const (
	documentPath  = "instance-identity/document"
	signaturePath = "instance-identity/signature"
)

// Proof returns the instance identity document, exactly as the service has it,
// and Amazon's signature of it.
func (m *Metadata) Proof(ctx context.Context) (document, signature string, err error) {
	if document, err = m.dynamic(ctx, documentPath); err != nil {
		return "", "", err
	}
	if signature, err = m.dynamic(ctx, signaturePath); err != nil {
		return "", "", err
	}
	return document, signature, nil
}

// UserData is what worker-manager has a machine know when it requests it.
type UserData struct {
	RootURL     string `json:"rootUrl"`
	Pool        string `json:"workerPoolId"`
	ProviderID  string `json:"providerId"`
	WorkerGroup string `json:"workerGroup"`
}

// UserData returns what worker-manager has the machine know. It is empty if the
// machine has no user data, or some that is no JSON object, such as a script.
func (m *Metadata) UserData(ctx context.Context) (UserData, error) {
	text, err := m.userData(ctx)
	if errors.Is(err, errAbsent) {
		return UserData{}, nil
	}
	if err != nil {
		return UserData{}, err
	}
	return parseUserData(text)
}

func parseUserData(text string) (UserData, error) {
	var u UserData
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return u, nil
	}
	if err := json.Unmarshal([]byte(text), &u); err != nil {
		return UserData{}, fmt.Errorf("user data: %w", err)
	}
	return u, nil
}
