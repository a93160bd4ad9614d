package mcp

// methodChannel is the notification that Claude Code shows to its model as a channel message.
const methodChannel = "notifications/claude/channel"

// channelParams are the parameters of methodChannel. They fit a line: see frame.
type channelParams struct {
	Content string            `json:"content"`
	Meta    map[string]string `json:"meta"`
}
