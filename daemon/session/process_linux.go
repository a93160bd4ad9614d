package session

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Start reads /proc/<pid>/stat. The start time is in clock ticks since boot, so the id of the boot belongs to it.
func (HostProcesses) Start(pid int) (start string, alive bool, err error) {
	// The signal decides and not a missing file: /proc may not be mounted, or hide the process.
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return "", false, nil
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", true, fmt.Errorf("look at process %d: %w", pid, err)
	}
	state, ticks, ok := parseStat(string(b))
	if !ok {
		return "", true, fmt.Errorf("look at process %d: unknown form of stat", pid)
	}
	if state == "Z" || state == "X" || state == "x" {
		return "", false, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", true, nil
	}
	return ticks + "@" + strings.TrimSpace(string(boot)), true, nil
}

// parseStat takes the state (field 3) and the start time (field 22) out of a stat line (proc(5)). Field 2, the command
// in parentheses, may itself hold spaces, newlines and parentheses: the fields after it start at the last ")".
func parseStat(stat string) (state, ticks string, ok bool) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return "", "", false
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 20 {
		return "", "", false
	}
	if _, err := strconv.ParseUint(fields[19], 10, 64); err != nil {
		return "", "", false
	}
	return fields[0], fields[19], true
}
