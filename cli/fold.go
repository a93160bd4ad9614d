package cli

import (
	"os"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"
)

// Text of our own on a terminal keeps to its width; in a file or a pipe lines stay as they are, so that scripts find them whole. A width of 0 means no limit.

// maxWidth is how long a line of prose gets on a wide terminal.
const maxWidth = 120

// width is that of the terminal that results are printed on, 0 when it is none.
func (u *ui) width() int {
	f, ok := u.out.(*os.File)
	if !ok {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w <= 0 {
		return 0
	}
	return max(w, 40)
}

// table prints rows of two columns; the second one is wrapped.
func table(rows [][2]string, width int) string {
	first := 0
	for _, r := range rows {
		first = max(first, ansi.StringWidth(r[0]))
	}
	if width > 0 {
		first = min(first, width/2)
	}
	var b strings.Builder
	for _, r := range rows {
		head := "  " + r[0] + strings.Repeat(" ", max(0, first-ansi.StringWidth(r[0]))) + "  "
		b.WriteString(hang(head, r[1], width, first+4))
	}
	return b.String()
}

// hang prints a text behind head, its further lines indented. A head that is too long stands alone.
func hang(head, text string, width, indent int) string {
	if width == 0 || ansi.StringWidth(head+text) <= width {
		return strings.TrimRight(head+text, " ") + "\n"
	}
	pad := strings.Repeat(" ", indent)
	lines := strings.Split(wrap(text, max(20, width-indent)), "\n")
	if ansi.StringWidth(head) > indent {
		return strings.TrimRight(head, " ") + "\n" + pad + strings.Join(lines, "\n"+pad) + "\n"
	}
	return strings.TrimRight(head+strings.Join(lines, "\n"+pad), " ") + "\n"
}

// wrap breaks a text at its spaces, and nowhere else: a flag must not lose its dashes to the line above.
func wrap(text string, width int) string {
	var b strings.Builder
	at := 0
	for _, word := range strings.Fields(text) {
		w := ansi.StringWidth(word)
		switch {
		case at == 0:
		case at+1+w > width:
			b.WriteByte('\n')
			at = 0
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += w
	}
	return b.String()
}

// reflow wraps paragraphs anew. A line that begins with white space stays as it is.
func reflow(text string, width int) string {
	if width == 0 {
		return text
	}
	width = min(width, maxWidth)
	var paragraphs []string
	for _, p := range strings.Split(text, "\n\n") {
		var out []string
		var prose []string
		flush := func() {
			if len(prose) > 0 {
				out = append(out, wrap(strings.Join(prose, " "), width))
			}
			prose = nil
		}
		for _, line := range strings.Split(p, "\n") {
			if strings.TrimLeft(line, " \t") != line {
				flush()
				out = append(out, line)
				continue
			}
			prose = append(prose, line)
		}
		flush()
		paragraphs = append(paragraphs, strings.Join(out, "\n"))
	}
	return strings.Join(paragraphs, "\n\n")
}
