package supervisor

import (
	"fmt"
	"os"
	"strings"
)

// lookPath finds the file that name stands for under the environment of a task
// in dir. Whether the task may execute it is for the kernel to say.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for in := range strings.SplitSeq(variable(env, "PATH"), ":") {
		if !strings.HasPrefix(in, "/") {
			in = dir + "/" + in
		}
		file := strings.TrimRight(in, "/") + "/" + name
		if s, err := os.Stat(file); err == nil && s.Mode().IsRegular() && s.Mode().Perm()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%q: executable file not found in PATH", name)
}

func variable(env []string, name string) string {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}
