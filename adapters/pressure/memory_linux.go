package pressure

import (
	"bytes"
	"errors"
	"os"
	"strconv"
)

// freeMemory returns how much can be used without swapping.
func freeMemory() (int64, error) {
	content, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	return available(content)
}

// available finds the line such as "MemAvailable:   16104800 kB".
func available(meminfo []byte) (int64, error) {
	for line := range bytes.Lines(meminfo) {
		fields := bytes.Fields(line)
		if len(fields) == 3 && string(fields[0]) == "MemAvailable:" && string(fields[2]) == "kB" {
			kib, err := strconv.ParseInt(string(fields[1]), 10, 53)
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}
