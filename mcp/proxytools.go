package mcp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"claudemesh/mcp/frame"
	"claudemesh/wire"
)

// Tools and results of a service are a peer's. They are bounded, and made fit to be read, before a client sees them.

// Bounds of what is offered of a service.
const (
	maxSchema     = 64 << 10
	maxSchemas    = wire.MaxServiceToolsJSON
	maxToolResult = 1 << 20
)

// toolName is what clients take for a tool's name.
var toolName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// fitTools are the tools that can be offered: those with a usable name, each once, and a schema that is a JSON object, or else the one that allows anything.
func fitTools(service string, tools []wire.Tool) []*sdk.Tool {
	out := []*sdk.Tool{}
	seen := map[string]bool{}
	size := 0
	for _, t := range tools {
		if !toolName.MatchString(t.Name) || seen[t.Name] || len(out) == wire.MaxServiceTools {
			continue
		}
		schema := fitSchema(t.InputSchema)
		if size += len(schema); size > maxSchemas {
			break
		}
		seen[t.Name] = true
		out = append(out, &sdk.Tool{
			Name:        t.Name,
			Description: fmt.Sprintf("[mesh:%s] %s", service, cutAt(frame.Text(t.Description), maxDescription)),
			InputSchema: schema,
		})
	}
	return out
}

// fitSchema is a schema of type object with its texts made fit. What is none, is too long, or has names that would have to be changed, becomes the schema of
// any object: the service judges the arguments itself.
func fitSchema(raw json.RawMessage) json.RawMessage {
	anything := json.RawMessage(`{"type":"object"}`)
	var schema map[string]any
	if len(raw) > maxSchema || json.Unmarshal(raw, &schema) != nil || schema == nil || !plainNames(schema) {
		return anything
	}
	fitted, ok := fitValue(schema).(map[string]any)
	if !ok {
		return anything
	}
	fitted["type"] = "object"
	out, err := json.Marshal(fitted)
	if err != nil || len(out) > 2*maxSchema {
		return anything
	}
	return out
}

// plainNames reports whether every name in a JSON value can be shown as it is.
func plainNames(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if !plainNames(e) {
				return false
			}
		}
	case map[string]any:
		for key, value := range v {
			if frame.Line(key) != key || !plainNames(value) {
				return false
			}
		}
	}
	return true
}

// fitResult is what a service answered: the texts and pictures of an MCP result; anything else as JSON text.
func fitResult(raw json.RawMessage) *sdk.CallToolResult {
	if len(raw) > maxToolResult {
		return failed(fmt.Sprintf("the result has %d bytes, more than can be handed over", len(raw)))
	}
	var result sdk.CallToolResult
	if json.Unmarshal(raw, &result) == nil && len(result.Content) > 0 {
		out := &sdk.CallToolResult{IsError: result.IsError, Content: []sdk.Content{}}
		for _, part := range result.Content {
			switch part := part.(type) {
			case *sdk.TextContent:
				out.Content = append(out.Content, &sdk.TextContent{Text: frame.Text(part.Text)})
			case *sdk.ImageContent:
				out.Content = append(out.Content, &sdk.ImageContent{Data: part.Data, MIMEType: frame.Line(part.MIMEType)})
			case *sdk.AudioContent:
				out.Content = append(out.Content, &sdk.AudioContent{Data: part.Data, MIMEType: frame.Line(part.MIMEType)})
			default:
				out.Content = append(out.Content, jsonText(part))
			}
		}
		return out
	}
	var word string
	if json.Unmarshal(raw, &word) == nil {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: frame.Text(word)}}}
	}
	return &sdk.CallToolResult{Content: []sdk.Content{jsonText(raw)}}
}

// jsonText shows a value as JSON.
func jsonText(v any) *sdk.TextContent {
	raw, err := json.Marshal(v)
	var b bytes.Buffer
	if err == nil {
		err = json.Indent(&b, raw, "", "  ")
	}
	if err != nil || b.Len() > maxToolResult {
		return &sdk.TextContent{Text: frame.Note("the service answered something that is not readable")}
	}
	return &sdk.TextContent{Text: frame.Text(b.String())}
}
