package session

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/windows"
)

const stillActive = 259 // STILL_ACTIVE: the exit code of a process that has none yet

// Start opens the process. The start time is in units of 100 ns since 1601.
func (HostProcesses) Start(pid int) (start string, alive bool, err error) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) { // what Windows says for a pid nobody has
		return "", false, nil
	}
	if err != nil {
		return "", true, fmt.Errorf("look at process %d: %w", pid, err)
	}
	defer func() { _ = windows.CloseHandle(h) }()
	var code uint32
	if err := windows.GetExitCodeProcess(h, &code); err == nil && code != stillActive {
		return "", false, nil // kept only by the handles others hold
	}
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(h, &created, &exited, &kernel, &user); err != nil {
		return "", true, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return strconv.FormatInt(int64(created.HighDateTime)<<32|int64(created.LowDateTime), 10), true, nil
}
