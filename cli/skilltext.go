package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
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
