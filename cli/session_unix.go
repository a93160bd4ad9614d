//go:build unix

package cli

import (
	"os"
	"syscall"
)

// forwarded are the signals that session run hands to its command. Those that a terminal sends by itself are named in fromTerminal.
var forwarded = []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT}

func fromTerminal(s os.Signal) bool { return s == syscall.SIGINT || s == syscall.SIGQUIT }

// childCode is the exit code of a program as a shell would tell it.
func childCode(st *os.ProcessState) int {
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitSignal + int(ws.Signal())
	}
	return st.ExitCode()
}
