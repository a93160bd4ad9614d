//go:build unix

package claude

import (
	"encoding/json"
	"fmt"
	"net/http"
)

type object = map[string]any

// usage is in every answer; the client adds it up and shows it.
func usage() object { return object{"input_tokens": 1, "output_tokens": 1} }

// block is the one content block of an answer, with its stop reason.
func block(id string, r Reply) (content object, stop string) {
	if r.Command != "" {
		return object{"type": "tool_use", "id": "toolu_" + id, "name": "Bash", "input": object{"command": r.Command, "description": "run it"}}, "tool_use"
	}
	return object{"type": "text", "text": r.Text}, "end_turn"
}

// message is an answer to a request without stream.
func message(id, model string, r Reply) object {
	content, stop := block(id, r)
	return object{
		"id": id, "type": "message", "role": "assistant", "model": model, "content": []object{content}, "stop_reason": stop, "stop_sequence": nil, "usage": usage(),
	}
}

// writeStream answers as server-sent events. An error means that the client has gone, which is its right.
func writeStream(w http.ResponseWriter, id, model string, r Reply) {
	content, stop := block(id, r)
	start := object{}
	for k, v := range content {
		start[k] = v
	}
	delta := object{"type": "text_delta", "text": r.Text}
	if r.Command != "" {
		input, _ := json.Marshal(content["input"])
		delta = object{"type": "input_json_delta", "partial_json": string(input)}
		start["input"] = object{}
	} else {
		start["text"] = ""
	}
	for _, event := range []object{
		{"type": "message_start", "message": object{"id": id, "type": "message", "role": "assistant", "model": model, "content": []object{}, "stop_reason": nil, "stop_sequence": nil, "usage": usage()}},
		{"type": "content_block_start", "index": 0, "content_block": start},
		{"type": "content_block_delta", "index": 0, "delta": delta},
		{"type": "content_block_stop", "index": 0},
		{"type": "message_delta", "delta": object{"stop_reason": stop, "stop_sequence": nil}, "usage": usage()},
		{"type": "message_stop"},
	} {
		data, _ := json.Marshal(event)
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event["type"], data); err != nil {
			return
		}
	}
}
