//go:build unix && !race

package claude_test

const (
	crowdSessions = 50
	crowdMessages = 3_000
)
