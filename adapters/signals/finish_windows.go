package signals

import "os"

// finishes returns no signals: Windows has none to spare.
func finishes() []os.Signal { return nil }
