// Command standalone is a supervisor and nothing else. The worker carries it
// along, since started from the worker's own binary each would initialize all
// that is linked there: see the README in adapters/native/embedded.
package main

import (
	"os"

	"github.com/taskcluster/taskcluster-worker/adapters/native/supervisor"
)

func main() { os.Exit(supervisor.Main()) }
