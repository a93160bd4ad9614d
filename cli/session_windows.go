package cli

import "os"

// forwarded are the signals that session run hands to its command.
var forwarded = []os.Signal{os.Interrupt}

func fromTerminal(os.Signal) bool { return true }

func childCode(st *os.ProcessState) int { return st.ExitCode() }
