//go:build unix && !race

package claude_test

const (
	crowdSessions = 50
	crowdMessages = 1_000
	crowdLong     = 10_000 // of CLAUDEMESH_TEST_LONG: minutes on a small machine
)
