// Package queuetest tests implementations of the queue port, and has a queue in
// memory for the tests of everything else.
package queuetest
