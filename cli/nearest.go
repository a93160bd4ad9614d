package cli

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// nearest is the candidate that a mistyped word most likely meant, or "" when none is near: within a third of the word's length, and at least one letter.
func nearest(word string, candidates []string) string {
	best, limit := "", max(1, len([]rune(word))/3)
	word = strings.ToLower(word)
	for _, c := range candidates {
		// Two letters in the wrong order are the most frequent error, and two edits: they count as one.
		d := levenshtein.ComputeDistance(word, strings.ToLower(c))
		if d == 2 && swapped(word, strings.ToLower(c)) {
			d = 1
		}
		if d <= limit && d < len(word) {
			best, limit = c, d-1
		}
	}
	return best
}

// swapped reports whether two words differ by two neighbouring letters that changed places.
func swapped(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	return i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}
