package pressure

import "testing"

func TestFreeMemory(t *testing.T) {
	if free, err := freeMemory(); err != nil || free <= 0 {
		t.Errorf("%d bytes are free, %v", free, err)
	}
}

func TestAvailable(t *testing.T) {
	for _, tt := range []struct {
		meminfo string
		want    int64
		ok      bool
	}{
		{"MemTotal:       24690884 kB\nMemFree:         1032 kB\nMemAvailable:   2048 kB\n", 2 << 20, true},
		{"MemTotal:       24690884 kB\n", 0, false},
		{"MemAvailable:   much kB\n", 0, false},
		{"MemAvailable:   99999999999999999999 kB\n", 0, false},
		{"", 0, false},
	} {
		got, err := available([]byte(tt.meminfo))
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%q has %d, %v; want %d", tt.meminfo, got, err, tt.want)
		}
	}
}
