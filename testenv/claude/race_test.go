//go:build unix && race

package claude_test

// The race detector makes everything about ten times as slow.
const (
	crowdSessions = 10
	crowdMessages = 400
)
