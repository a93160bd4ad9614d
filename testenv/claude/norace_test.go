//go:build unix && !race

package claude_test

const (
	crowdSessions = 50
	crowdMessages = 10_000
)
