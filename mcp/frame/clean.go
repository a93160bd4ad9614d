package frame

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a stranger wrote is made fit to stand inside a frame here, in two steps: [clean] leaves no character that is not seen or turns the text around, [guard]
// breaks up what looks like a frame. Both change only what they must, and visibly.

// Bounds of what is shown, in bytes.
const (
	maxBody  = 128 << 10 // of a text; six times of it, as JSON may need, still fit one line of an MCP client
	maxField = 512
	maxName  = 128
)

// guarded are the words that a text must not have behind an opening bracket: elements and notices of ours and of the client. Lower case, without dashes and
// spaces.
var guarded = map[rune][]string{
	'<': {"meshmessage", "channel", "systemreminder", "systemnotification", "tasknotification"},
	'[': {"claudemesh", "systemnotification", "systemreminder"},
}

// clean shows control characters as their pictures, and neutralises what reorders or hides text: bidirectional controls and the tag characters, in which a
// second text can travel unseen. Line breaks of every kind become \n; \n and \t stay.
func clean(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\u2028' || r == '\u2029' || r == '\u0085':
			return '\n'
		case r < 0x20:
			return 0x2400 + r
		case r == 0x7f:
			return '\u2421'
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r >= 0xE0000 && r <= 0xE0FFF:
			return '\uFFFD'
		}
		return r
	}, s)
}

// guard puts a backslash behind every bracket that opens a look-alike of a frame. It can be undone: a backslash that stood there already is followed by one more.
func guard(s string) string {
	if !strings.ContainsAny(s, "<[\uFF1C\uFF3B\uFE64\u2039\u3008\u27E8") {
		return s
	}
	var b strings.Builder
	from := 0
	for i, r := range s {
		words := guarded[bracket(r)]
		if end := i + utf8.RuneLen(r); words != nil && opens(s[end:], words) {
			b.WriteString(s[from:end])
			b.WriteByte('\\')
			from = end
		}
	}
	b.WriteString(s[from:])
	return b.String()
}

// bracket is the ASCII bracket that a character may be read as, or 0.
func bracket(r rune) rune {
	switch r {
	case '<', '\uFF1C', '\uFE64', '\u2039', '\u3008', '\u27E8':
		return '<'
	case '[', '\uFF3B':
		return '['
	}
	return 0
}

// maxGap is how many characters that do not count may stand before and inside a word for it to be still read as one.
const maxGap = 32

// opens reports whether s, what follows a bracket, reads as one of the words, in any case and width, closing or not, with blanks, dashes and what is not
// seen left out. A longer word is another word.
func opens(s string, words []string) bool {
	var word strings.Builder
	gap := 0
	for _, r := range s {
		switch r = fold(r); {
		case unicode.IsLetter(r), unicode.IsDigit(r):
			if slices.Contains(words, word.String()) {
				return gap > 0 || r >= utf8.RuneSelf // else the word goes on
			}
			word.WriteRune(r)
			gap = 0
			if word.Len() > 32 {
				return false
			}
			continue
		case word.Len() == 0 && (r == '/' || r == '\\' || unicode.IsSpace(r) || hidden(r)):
		case word.Len() > 0 && (r == '_' || unicode.Is(unicode.Pd, r) || r == '\u2212' || unicode.IsSpace(r) || hidden(r)):
		default:
			return slices.Contains(words, word.String())
		}
		if gap++; gap > maxGap {
			return slices.Contains(words, word.String())
		}
	}
	return slices.Contains(words, word.String())
}

// hidden reports whether a character takes no room of its own.
func hidden(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Mn, unicode.Me, unicode.Other_Default_Ignorable_Code_Point)
}

// fold takes case and width away.
func fold(r rune) rune {
	if r >= '\uFF01' && r <= '\uFF5E' {
		r -= 0xFEE0
	}
	return unicode.ToLower(r)
}

// text is a body made fit for a frame. One that is too long is cut; whole tells whether it was not.
func text(s string) (out string, whole bool) {
	h := head(s, maxBody)
	return guard(clean(h)), len(h) == len(s)
}

// Line is a name that a stranger chose, fit to stand in a line of ours: one line, short, and no frame in it.
func Line(s string) string { return field(s, maxName) }

// field is a short thing that a stranger chose, on one line and not longer than most bytes.
func field(s string, most int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, clean(head(s, most))))
	return guard(head(s, most))
}

// head is the longest beginning of s of at most n bytes that does not split a character.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
