package cli

import (
	"fmt"
	"io"
	"strings"
)

// restText is the text made of the positional arguments from the first on, or stdin when there is only "-"; at most limit bytes.
func (c *call) restText(first, limit int) (string, error) {
	words := c.args()[first:]
	if len(words) != 1 || words[0] != "-" {
		return strings.Join(words, " "), nil
	}
	return readAtMost(c.stdin, "stdin", limit)
}

// readAtMost reads to the end; more than limit bytes are refused.
func readAtMost(r io.Reader, name string, limit int) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > limit {
		return "", usagef("%s holds more than %d bytes", name, limit)
	}
	return string(b), nil
}

// forOutput is a stranger's text for stdout: as it is for a file or a pipe, made safe for a terminal.
func (c *call) forOutput(s string) string {
	if terminal(c.stdout) {
		return clean(s)
	}
	return s
}

// tagList splits the value of --tags.
func tagList(list string) []string {
	tags := []string{}
	for _, t := range strings.Split(list, ",") {
		if t = strings.TrimSpace(t); t != "" {
			tags = append(tags, t)
		}
	}
	return tags
}
