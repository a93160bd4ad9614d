package cli

import (
	"errors"
	"fmt"
	"strings"
)

// Errors of the verbs, told apart by explain.
var (
	errNoMesh      = errors.New("no mesh is joined")
	errCancelled   = errors.New("cancelled")
	errNoAutospawn = errors.New("no daemon is running, and CLAUDEMESH_INTERNAL_NO_AUTOSPAWN forbids to start one")
)

// usageError is a mistake in the arguments.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{message: fmt.Sprintf(format, args...)}
}

// severalMeshesError: the verb needs one mesh and nobody said which.
type severalMeshesError struct{ slugs []string }

func (e *severalMeshesError) Error() string {
	return "several meshes are joined and none is named: " + strings.Join(e.slugs, ", ")
}

// unknownMeshError: no mesh of that slug is joined.
type unknownMeshError struct {
	slug   string
	joined []string
}

func (e *unknownMeshError) Error() string { return fmt.Sprintf("no mesh %q is joined here", e.slug) }

// tooLargeError: a text over the limit, refused before anything was sent.
type tooLargeError struct{ limit int }

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("the message is longer than the limit of %d bytes", e.limit)
}

// startError: a daemon was needed and could not be started.
type startError struct {
	reason string
	log    string // path of its log
	tail   string // what it wrote there last
}

func (e *startError) Error() string { return "the daemon did not start: " + e.reason }

// pausedError: the daemon holds its lock and does not answer.
type pausedError struct{ pid int }

func (e *pausedError) Error() string {
	who := "the daemon"
	if e.pid > 0 {
		who = fmt.Sprintf("the daemon (pid %d)", e.pid)
	}
	return who + " holds its lock but does not answer; it may be paused or overloaded; nothing was sent"
}

// exitError ends the program with a code and no further word: everything was printed already.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func (e *startError) hint() string {
	var lines []string
	if e.tail != "" {
		lines = append(lines, "its last words: "+strings.ReplaceAll(e.tail, "\n", "\n    "))
	}
	return strings.Join(append(lines, "its log is "+e.log, "try it by hand with: claudemesh daemon up"), "\n")
}

func (e *pausedError) hint() string {
	if e.pid > 0 {
		return fmt.Sprintf("if it was paused, continue it with: kill -CONT %d", e.pid)
	}
	return "look at: claudemesh daemon status"
}
