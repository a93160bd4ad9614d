package session

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const zombie = 5 // SZOMB in <sys/proc.h>

// Start asks the kernel's process table. The start time is wall clock time with microseconds, set once at the fork.
func (HostProcesses) Start(pid int) (start string, alive bool, err error) {
	if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
		return "", false, nil
	}
	procs, err := unix.SysctlKinfoProcSlice("kern.proc.pid", pid)
	if err != nil {
		return "", true, fmt.Errorf("look at process %d: %w", pid, err)
	}
	for _, p := range procs {
		if int(p.Proc.P_pid) != pid {
			continue
		}
		if p.Proc.P_stat == zombie {
			return "", false, nil
		}
		return fmt.Sprintf("%d.%06d", p.Proc.P_starttime.Sec, p.Proc.P_starttime.Usec), true, nil
	}
	return "", false, nil
}
