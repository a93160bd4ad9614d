//go:build unix

package fake

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// message is a part of the conversation as the API has it.
type message struct {
	Role    string  `json:"role"`
	Content []block `json:"content"`
}

type block struct {
	Type      string          `json:"type"`
	Text      string          `json:"text,omitempty"`
	ID        string          `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Input     json.RawMessage `json:"input,omitempty"`
	ToolUseID string          `json:"tool_use_id,omitempty"`
	Content   string          `json:"content,omitempty"`
}

func text(role, s string) message {
	return message{Role: role, Content: []block{{Type: "text", Text: s}}}
}

// model is who answers.
type model interface {
	// ask gives the conversation; the messages from added on are new in it.
	ask(ctx context.Context, session string, conversation []message, added int) (message, error)
}

// api is the model behind the Messages API.
type api struct {
	url, key, system string
}

func (a api) ask(ctx context.Context, session string, conversation []message, _ int) (message, error) {
	body, err := json.Marshal(object{
		"model": "claude-scripted", "max_tokens": 1024, "system": []block{{Type: "text", Text: a.system}}, "messages": conversation,
		"tools": []object{{"name": "Bash", "description": "runs a command", "input_schema": object{"type": "object"}}},
	})
	if err != nil {
		return message{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"/v1/messages?beta=true", bytes.NewReader(body))
	if err != nil {
		return message{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Api-Key", a.key)
	req.Header.Set("X-Claude-Code-Session-Id", session)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return message{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return message{}, fmt.Errorf("the API answers %s", resp.Status)
	}
	var m message
	return m, json.NewDecoder(resp.Body).Decode(&m)
}
