//go:build !race

package testenv_test

// raceFactor is about how much larger a process is with the race detector in it.
const raceFactor = 1
