package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// ui holds the only printers of the program. Its rules:
//
//   - print writes results, and only results, to stdout. warn and fail write to stderr, an error and its hint both.
//   - Messages start in lower case and end without a full stop. A hint says what to do next and is on a line of its own.
//   - With --json, stdout is exactly one JSON value (with --follow, one a line). A failure is then the object {"ok":false,"error":code,"message":…,"hint":…},
//     and stderr stays silent but for notes about the daemon. With --jq, stdout is what the expression makes of the result, and a failure is text on stderr:
//     a script that takes stdout for an answer must not get something else.
//   - Colour only on a terminal, never when NO_COLOR is set or TERM is dumb.
//   - Text that another person chose goes through clean before it reaches a terminal.
type ui struct {
	out, err io.Writer
	json     bool
	fields   []string  // of --json=FIELDS; nil for all
	filter   *jqFilter // of --jq; nil without
	quiet    bool      // no notes
	colour   bool      // of stdout
	colErr   bool      // of stderr
}

func newUI(e *env, json bool) *ui {
	plain := e.getenv("NO_COLOR") != "" || e.getenv("TERM") == "dumb"
	return &ui{out: e.stdout, err: e.stderr, json: json, colour: !plain && terminal(e.stdout), colErr: !plain && terminal(e.stderr)}
}

// print writes one line of a result.
func (u *ui) print(format string, args ...any) error {
	_, err := fmt.Fprintf(u.out, format+"\n", args...)
	return err
}

// result prints v when JSON is wanted, else what text prints.
func (u *ui) result(v any, text func() error) error {
	if u.json {
		return u.printJSON(v, false)
	}
	return text()
}

// note writes a line about what happened on the way, to stderr, whatever the format of the result; --quiet keeps it back.
func (u *ui) note(format string, args ...any) {
	if u.quiet {
		return
	}
	fmt.Fprintf(u.err, format+"\n", args...)
}

// warn writes a warning to stderr.
func (u *ui) warn(format string, args ...any) {
	fmt.Fprintln(u.err, paint(u.colErr, yellow, "warning:")+" "+fmt.Sprintf(format, args...))
}

// fail writes a failure, with its hint.
func (u *ui) fail(f *failure) {
	if u.json && u.filter == nil {
		if raw, err := marshal(f); err == nil {
			_ = u.writeJSON(raw, false)
		}
		return
	}
	fmt.Fprintln(u.err, paint(u.colErr, red, "error:")+" "+f.Message)
	for _, line := range strings.Split(f.Hint, "\n") {
		if line != "" {
			fmt.Fprintln(u.err, "hint: "+line)
		}
	}
}

// Colours, as parameters of the terminal's SGR sequence.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (u *ui) paint(code, s string) string { return paint(u.colour, code, s) }

func paint(on bool, code, s string) string {
	if !on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// clean makes a stranger's text safe for a terminal: control characters but newline and tab become visible question marks.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || !unicode.IsControl(r) && !unicode.In(r, unicode.Bidi_Control) {
			return r
		}
		return '?'
	}, s)
}

// cleanLine is clean for text that must stay on one line.
func cleanLine(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(clean(s))
}

// indent puts prefix before every line of s but the first.
func indent(s, prefix string) string { return strings.ReplaceAll(s, "\n", "\n"+prefix) }

// short is the beginning of a key that is enough to address it.
func short(key string) string { return key[:min(len(key), 16)] }

func plural(n int, one string) string { return counted(n, one, one+"s") }

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
