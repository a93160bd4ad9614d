// Package skilltext writes a skill of the mesh as a SKILL.md: YAML between two lines "---", then the instructions. Whatever its author wrote, the YAML parses
// back to the same values and ends where it seems to end.
//
// Packages cli (skill get) and mcp (prompts and resources) call it.
package skilltext

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"claudemesh/wire"
)

// fence begins and ends what is in front of the instructions.
const fence = "---\n"

// names are the fields of a manifest that other clients spell in the way of JSON.
var names = map[string]string{"allowed_tools": "allowed-tools", "user_invocable": "user-invocable", "argument_hint": "argument-hint"}

// Format writes a skill whole.
func Format(s *wire.Skill) (string, error) {
	front, err := Front(s)
	if err != nil {
		return "", err
	}
	return front + "\n" + strings.TrimSuffix(s.Instructions, "\n") + "\n", nil
}

// Front is what stands in front of the instructions: name, description, tags, then what else the manifest says, by name.
func Front(s *wire.Skill) (string, error) {
	doc := yaml.Node{Kind: yaml.MappingNode}
	add := func(key string, value any) error {
		var k, v yaml.Node
		k.SetString(key)
		if err := v.Encode(value); err != nil {
			return fmt.Errorf("write skill: %w", err)
		}
		doc.Content = append(doc.Content, &k, &v)
		return nil
	}
	if err := add("name", s.Name); err != nil {
		return "", err
	}
	if err := add("description", s.Description); err != nil {
		return "", err
	}
	if len(s.Tags) > 0 {
		if err := add("tags", s.Tags); err != nil {
			return "", err
		}
	}
	fields := Manifest(s)
	var keys []string
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := add(key, fields[key]); err != nil {
			return "", err
		}
	}
	var front strings.Builder
	enc := yaml.NewEncoder(&front)
	if err := enc.Encode(&doc); err != nil {
		return "", fmt.Errorf("write skill: %w", err)
	}
	if err := enc.Close(); err != nil {
		return "", fmt.Errorf("write skill: %w", err)
	}
	return fence + front.String() + fence, nil
}

// Manifest is what a skill says beside its name, description and tags. A manifest that is no object is of another client; it says nothing here.
func Manifest(s *wire.Skill) map[string]any {
	var more map[string]any
	if json.Unmarshal(s.Manifest, &more) != nil {
		return nil
	}
	fields := map[string]any{}
	for key, value := range more {
		name := key
		if n, ok := names[key]; ok {
			name = n
		}
		_, spelled := more[name]
		switch {
		case key == "name" || key == "description" || key == "tags":
		case name != key && spelled: // the usual spelling is there as well, and counts
		default:
			fields[name] = value
		}
	}
	return fields
}
