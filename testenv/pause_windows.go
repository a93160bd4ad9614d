package testenv

import (
	"errors"
	"os"
)

// pause is not to be had: Windows has no signal that stops a process.
func pause(*os.Process) error { return errors.ErrUnsupported }

func resume(*os.Process) error { return nil }
