// Package supervisor is the process between the worker and one task.
//
// A supervisor is the first process of the task's PID namespace. It is started
// ahead of the task, puts its surroundings in order, and waits. Told what to
// execute, it runs the commands one after the other as the task's user, reaps
// what they leave behind, stores their output in a file and tells the worker
// about it over a Unix socket. At the end it kills what is left and stays,
// since the task's files can be seen through it, until the worker ends it, and
// with it the kernel ends everything else in the namespace.
//
// When the connection to the worker breaks, it goes on with the task, and waits
// for the next worker to connect, which learns all that has happened from the
// beginning. One without a task ends, and so does one that no worker comes for,
// or is to come for.
//
// It is the worker's binary under another name: main begins with
//
//	if supervisor.Invoked() {
//		os.Exit(supervisor.Main())
//	}
//
// There is one for each task, so it is kept small: it links little and it
// allocates little.
package supervisor

import "os"

// Invoked reports whether this process was started to be a supervisor.
func Invoked() bool { return len(os.Args) > 0 && os.Args[0] == Name }
