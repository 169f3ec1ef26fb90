package interrupt

import "context"

// Host is the machine that a worker runs on.
type Host interface {
	// Retire ends the use of the machine: it is shut down, restarted, or taken
	// away by its provider. It is the last thing that a worker does, after all
	// runs are disposed of, and must be allowed by the operator. A nil error
	// says that the machine goes away without anybody doing more, maybe at
	// once, maybe minutes later; why is for the logs of whoever takes it away.
	//
	// After an error the machine may be retired or not, and it is safe to call
	// Retire again, as it is for one that is retired already.
	//
	// Errors: that of ctx, also when nobody answers; and whatever keeps the
	// machine, such as a missing permission.
	Retire(ctx context.Context, why string) error
}
