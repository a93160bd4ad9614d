// Package urlhandler makes claudemesh:// links open with this program: a desktop file on Linux, an application of two lines of AppleScript on macOS, two keys
// of the user's registry on Windows. All of it is the user's own; nothing needs an administrator.
//
// A link is a stranger's text. The invariant: it reaches the program as one argument, never as a piece of a shell's or a script's source, and the program asks
// before it does anything.
package urlhandler

import (
	"context"
	"fmt"
	"strings"
)

// Scheme is the links' beginning, without "://".
const Scheme = "claudemesh"

// Handler says what to register, and where.
type Handler struct {
	Binary string // absolute
	Home   string
	// DataHome is XDG_DATA_HOME, "" for its default. Linux only.
	DataHome string
	// Run runs a program of the system and returns what it printed.
	Run func(ctx context.Context, name string, args ...string) ([]byte, error)
}

// Result is what was done. Notes are what the user should know.
type Result struct {
	Files []string // or registry keys
	Notes []string
}

// openArgs come in front of the link.
var openArgs = []string{"url-handler", "open", "--pause"}

// desktopEntry is the Linux file. %u is the link, as one argument (Desktop Entry Specification, "The Exec key").
func desktopEntry(binary string) string {
	return fmt.Sprintf(`[Desktop Entry]
Type=Application
Name=claudemesh
Comment=Join a mesh by a link
Exec=%s %s %%u
Terminal=true
NoDisplay=true
StartupNotify=false
MimeType=x-scheme-handler/%s;
`, desktopQuote(binary), strings.Join(openArgs, " "), Scheme)
}

// desktopQuote quotes an argument of Exec: once for the key's own rules, and its backslashes again because the value is a string. A percent sign is doubled.
func desktopQuote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", "$", `\$`).Replace(s)
	s = `"` + s + `"`
	return strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "%", "%%")
}

// appleScript opens a terminal with the program and the link. "quoted form of" makes each one argument of the shell in it.
func appleScript(binary string) string {
	return fmt.Sprintf(`on open location theLink
	set theCommand to quoted form of %s & " %s -- " & quoted form of theLink
	tell application "Terminal"
		activate
		do script theCommand
	end tell
end open location
`, appleQuote(binary), strings.Join(openArgs, " "))
}

func appleQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// plistEdits are the commands for PlistBuddy that make the application one for the scheme.
func plistEdits() []string {
	return []string{
		"Set :CFBundleIdentifier com.claudemesh.handler",
		"Add :CFBundleURLTypes array",
		"Add :CFBundleURLTypes:0 dict",
		"Add :CFBundleURLTypes:0:CFBundleURLName string claudemesh link",
		"Add :CFBundleURLTypes:0:CFBundleURLSchemes array",
		"Add :CFBundleURLTypes:0:CFBundleURLSchemes:0 string " + Scheme,
	}
}

// registryValue is one value of a key below HKEY_CURRENT_USER; name "" is the key's default.
type registryValue struct{ key, name, value string }

const registryRoot = `Software\Classes\` + Scheme

// registryValues are those of Windows. %1 is the link: Windows escapes quotation marks in it before it puts it there, and the quotes keep it one argument.
func registryValues(binary string) []registryValue {
	return []registryValue{
		{registryRoot, "", "URL:claudemesh link"},
		{registryRoot, "URL Protocol", ""},
		{registryRoot + `\shell\open\command`, "", fmt.Sprintf(`"%s" %s -- "%%1"`, binary, strings.Join(openArgs, " "))},
	}
}
