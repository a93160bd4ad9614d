package mcp

import (
	"encoding/json"
	"fmt"

	"claudemesh/bus"
	"claudemesh/mcp/frame"
)

// methodChannel is the notification that Claude Code shows to its model as a channel message.
const methodChannel = "notifications/claude/channel"

// channelParams are the parameters of methodChannel.
type channelParams struct {
	Content string            `json:"content"`
	Meta    map[string]string `json:"meta"`
}

// channelMessage renders an inbound message. It fits a line: see frame.
func channelMessage(item bus.InboxItem) (json.RawMessage, error) {
	content, meta := frame.Channel(item)
	raw, err := json.Marshal(channelParams{content, meta})
	if err != nil {
		return nil, fmt.Errorf("encode channel message: %w", err)
	}
	return raw, nil
}
