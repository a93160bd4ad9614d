package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"claudemesh/wire"
)

// Reading and writing a SKILL.md: YAML between two lines "---", then the instructions.

const fence = "---"

// parseSkill takes a SKILL.md apart. A text without anything in front is all instructions.
func parseSkill(text string) (skillText, error) {
	if !utf8.ValidString(text) {
		return skillText{}, usagef("the skill is not UTF-8 text")
	}
	text = strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n")
	rest, ok := strings.CutPrefix(text, fence+"\n")
	if !ok {
		return skillText{Instructions: text}, nil
	}
	front, body, ok := strings.Cut("\n"+rest, "\n"+fence+"\n")
	if !ok {
		if front, ok = strings.CutSuffix("\n"+rest, "\n"+fence); !ok {
			return skillText{}, usagef("the skill begins with %q, and there is no second line %q", fence, fence)
		}
	}
	var fields map[string]any
	if err := yaml.Unmarshal([]byte(front), &fields); err != nil {
		return skillText{}, usagef("what is in front of the skill is not YAML: %v", err)
	}
	s := skillText{Instructions: strings.TrimLeft(body, "\n")}
	for key, into := range map[string]*string{"name": &s.Name, "description": &s.Description} {
		if v, ok := fields[key]; ok && v != nil {
			*into = strings.TrimSpace(fmt.Sprint(v))
		}
		delete(fields, key)
	}
	switch tags := fields["tags"].(type) {
	case string:
		s.Tags = tagList(tags)
	case []any:
		for _, t := range tags {
			s.Tags = append(s.Tags, fmt.Sprint(t))
		}
	}
	delete(fields, "tags")
	if len(fields) > 0 {
		manifest, err := json.Marshal(fields)
		if err != nil {
			return skillText{}, usagef("what is in front of the skill cannot be written as JSON: %v", err)
		}
		s.Manifest = manifest
	}
	return s, nil
}

// formatSkill is the inverse of parseSkill.
func formatSkill(s *wire.Skill) (string, error) {
	var front strings.Builder
	enc := yaml.NewEncoder(&front)
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
	var more map[string]any
	if json.Unmarshal(s.Manifest, &more) == nil { // a manifest of another shape is of another client; it stays in --json
		keys := []string{}
		for key := range more {
			if key != "name" && key != "description" && key != "tags" {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			if err := add(key, more[key]); err != nil {
				return "", err
			}
		}
	}
	if err := enc.Encode(&doc); err != nil {
		return "", fmt.Errorf("write skill: %w", err)
	}
	if err := enc.Close(); err != nil {
		return "", fmt.Errorf("write skill: %w", err)
	}
	return fence + "\n" + front.String() + fence + "\n\n" + strings.TrimSuffix(s.Instructions, "\n") + "\n", nil
}
