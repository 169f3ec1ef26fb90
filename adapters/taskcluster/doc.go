// Package taskcluster lets a worker work for a Taskcluster deployment: it
// implements the queue, artifact and auth ports over the deployment's HTTP
// APIs, and has clients for the other services that a worker calls.
//
// Requests are signed by, and addressed as, Taskcluster's own client-go, but
// are sent by this package: client-go repeats every call for a quarter of an
// hour whatever its caller's patience, drops an answer that arrives as the
// context is canceled, and reads answers of any size.
package taskcluster
