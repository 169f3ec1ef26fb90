// Package artifacttest tests implementations of the artifact port, and has
// stores in memory for the tests of everything else.
package artifacttest
