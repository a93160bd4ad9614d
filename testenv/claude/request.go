//go:build unix

package claude

import (
	"encoding/json"
	"strings"
)

// Request is what the model was given: the whole conversation so far.
type Request struct {
	Session  string // the client's id of the conversation
	System   string
	Tools    []string // those whose schema the request holds
	Messages []Message
}

// Message is one part of it. The client sends what hooks add as messages of role "system".
type Message struct {
	Role string // user, assistant or system
	Text string // its text and the results of tools
}

// Count tells how often a text stands in what the model was given, leaving out what it said itself. When a Stop hook blocks, the client gives its reason
// twice, as the user's message and as a system message; that is one telling, and counted so.
func (r Request) Count(text string) int {
	n := 0
	for _, m := range r.Messages {
		if m.Role == "assistant" {
			continue
		}
		for _, part := range strings.Split(m.Text, "\n\n") {
			if strings.HasPrefix(part, `Stop hook blocking error from command: "`) && n > 0 {
				continue
			}
			n += strings.Count(part, text)
		}
	}
	return n
}

// Where is the message that holds the text first: its role, and whether it stands behind the result of a tool that belongs to the same turn.
func (r Request) Where(text string) (Message, bool) {
	for _, m := range r.Messages {
		if m.Role != "assistant" && strings.Contains(m.Text, text) {
			return m, true
		}
	}
	return Message{}, false
}

type wireRequest struct {
	Model  string          `json:"model"`
	Stream bool            `json:"stream"`
	System json.RawMessage `json:"system"`
	Tools  []struct {
		Name string `json:"name"`
	} `json:"tools"`
	Messages []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
}

func (w wireRequest) request(session string) Request {
	r := Request{Session: session, System: contentText(w.System)}
	for _, t := range w.Tools {
		r.Tools = append(r.Tools, t.Name)
	}
	for _, m := range w.Messages {
		r.Messages = append(r.Messages, Message{Role: m.Role, Text: contentText(m.Content)})
	}
	return r
}

// contentText is the text of a content: a string, or blocks, of which those of tools have content of their own.
func contentText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var blocks []struct {
		Type    string          `json:"type"`
		Text    string          `json:"text"`
		Content json.RawMessage `json:"content"`
	}
	if json.Unmarshal(raw, &blocks) != nil {
		return ""
	}
	var parts []string
	for _, b := range blocks {
		switch {
		case b.Type == "text":
			parts = append(parts, b.Text)
		case len(b.Content) > 0:
			parts = append(parts, contentText(b.Content))
		}
	}
	return strings.Join(parts, "\n\n")
}
