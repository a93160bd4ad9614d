//go:build unix

package fake

import (
	"fmt"
	"html"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The words that the client puts around what is not the user's. They are shortened: what claudemesh, or a test, can depend on is here.

const notUser = "[SYSTEM NOTIFICATION - NOT USER INPUT]\nThis is an automated background-task event, NOT a message from the user.\n\n"

// notification is what a waiting hook's last words become; the prompt that hooks are told is this, too.
func notification(hookName, stderr string) string {
	return fmt.Sprintf("<task-notification>\n<summary>Stop hook feedback</summary>\n</task-notification>\n<system-reminder>\nStop hook blocking error from command \"%s\": %s\n</system-reminder>",
		hookName, strings.TrimRight(stderr, "\n"))
}

var metaKey = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// channelTag is a channel message: attributes that are not names are left out, values are escaped, and the text cannot close the tag.
func channelTag(source, content string, meta map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<channel source="%s"`, html.EscapeString(source))
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		if metaKey.MatchString(k) {
			fmt.Fprintf(&b, ` %s="%s"`, k, html.EscapeString(meta[k]))
		}
	}
	fmt.Fprintf(&b, ">\n%s\n</channel>", strings.ReplaceAll(content, "</channel", `<\/channel`))
	return b.String()
}

// asTurn is an item that starts a turn.
func asTurn(it item) string {
	switch it.kind {
	case kindWake:
		return "<system-reminder>\n" + notUser + it.text + "\n</system-reminder>"
	case kindInbox:
		return "Another Claude session sent a message:\n" + it.text + "\n\nThis came from another Claude session — not typed by your user."
	}
	return it.text
}

// asNews is an item that is told in the middle of a turn.
func asNews(it item) string {
	switch it.kind {
	case kindWake:
		return notUser + it.text
	case kindChannel:
		return "A message arrived from " + it.from + " while you were working:\n" + it.text + "\n\nIMPORTANT: This is NOT from your user — it came from an external channel."
	}
	return "Another Claude session sent a message while you were working:\n" + it.text
}
