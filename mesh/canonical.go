package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Canonical metadata is what JSON.stringify prints for an object that was parsed
// and rebuilt with its keys sorted. It resembles RFC 8785 and differs from it:
// integer-like keys come first in numeric order, a key "__proto__" vanishes with
// its value, lone surrogates survive as escapes and numbers out of range are null.
// encoding/json can neither read lone surrogates nor tell these rules, hence a
// reader of our own.

// maxDepth bounds how deep arrays and objects nest.
const maxDepth = 64

// whiteSpace is what JSON allows between tokens.
const whiteSpace = " \t\r\n"

var (
	errJSONSyntax = errors.New("not valid JSON")
	errJSONDepth  = fmt.Errorf("nested deeper than %d levels", maxDepth)
	errJSONSize   = fmt.Errorf("longer than %d bytes", MaxMeta)
	errJSONUTF8   = errors.New("not valid UTF-8")
)

// canonicalMeta returns the canonical form of a JSON text, or nothing for an
// absent or null one.
func canonicalMeta(raw []byte) ([]byte, error) {
	if len(raw) > MaxMeta {
		return nil, errJSONSize
	}
	if !utf8.Valid(raw) {
		return nil, errJSONUTF8
	}
	if text := strings.Trim(string(raw), whiteSpace); len(raw) == 0 || text == "null" {
		return nil, nil
	}
	r := jsonReader{text: raw}
	r.space()
	out, err := r.value(nil, 0)
	if err != nil {
		return nil, err
	}
	r.space()
	if r.at != len(raw) {
		return nil, errJSONSyntax
	}
	return out, nil
}

// jsonReader parses a JSON text and appends the canonical form of each value as
// it goes.
type jsonReader struct {
	text []byte
	at   int
}

func (r *jsonReader) space() {
	for r.at < len(r.text) && strings.IndexByte(whiteSpace, r.text[r.at]) >= 0 {
		r.at++
	}
}

// next consumes c when it comes next.
func (r *jsonReader) next(c byte) bool {
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

func (r *jsonReader) value(out []byte, depth int) ([]byte, error) {
	if r.at == len(r.text) {
		return nil, errJSONSyntax
	}
	switch c := r.text[r.at]; {
	case c == '{' || c == '[':
		if depth == maxDepth {
			return nil, errJSONDepth
		}
		r.at++
		if c == '{' {
			return r.object(out, depth+1)
		}
		return r.array(out, depth+1)
	case c == '"':
		s, err := r.str()
		if err != nil {
			return nil, err
		}
		return appendString(out, s), nil
	case c == '-' || '0' <= c && c <= '9':
		return r.number(out)
	}
	for _, word := range []string{"true", "false", "null"} {
		if strings.HasPrefix(string(r.text[r.at:min(len(r.text), r.at+5)]), word) {
			r.at += len(word)
			return append(out, word...), nil
		}
	}
	return nil, errJSONSyntax
}

func (r *jsonReader) array(out []byte, depth int) ([]byte, error) {
	out = append(out, '[')
	r.space()
	if r.next(']') {
		return append(out, ']'), nil
	}
	for {
		var err error
		if out, err = r.value(out, depth); err != nil {
			return nil, err
		}
		r.space()
		if r.next(']') {
			return append(out, ']'), nil
		}
		if !r.next(',') {
			return nil, errJSONSyntax
		}
		out = append(out, ',')
		r.space()
	}
}

func (r *jsonReader) object(out []byte, depth int) ([]byte, error) {
	fields := make(map[string][]byte) // of duplicate keys the last one counts
	r.space()
	for more := !r.next('}'); more; {
		key, err := r.str()
		if err != nil {
			return nil, err
		}
		r.space()
		if !r.next(':') {
			return nil, errJSONSyntax
		}
		r.space()
		if fields[key], err = r.value(nil, depth); err != nil {
			return nil, err
		}
		r.space()
		switch {
		case r.next('}'):
			more = false
		case r.next(','):
			r.space()
		default:
			return nil, errJSONSyntax
		}
	}
	// Assigning to __proto__ sets the prototype, which nobody prints.
	delete(fields, utf16Of("__proto__"))

	out = append(out, '{')
	for i, key := range slices.SortedFunc(maps.Keys(fields), compareKeys) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendString(out, key), ':')
		out = append(out, fields[key]...)
	}
	return append(out, '}'), nil
}

// compareKeys is the order in which ECMAScript enumerates keys inserted in sorted
// order: array indexes by value, then the rest by code units.
func compareKeys(a, b string) int {
	x, xIndex := arrayIndex(a)
	y, yIndex := arrayIndex(b)
	switch {
	case xIndex && yIndex:
		return cmp.Compare(x, y)
	case xIndex:
		return -1
	case yIndex:
		return 1
	}
	return strings.Compare(a, b)
}

// arrayIndex reads a canonical array index: 0 … 4294967294, no leading zero.
func arrayIndex(key string) (int64, bool) {
	if len(key) == 0 || len(key) > 20 || len(key) > 2 && key[1] == '0' {
		return 0, false
	}
	var n int64
	for i := 0; i < len(key); i += 2 {
		if key[i] != 0 || key[i+1] < '0' || key[i+1] > '9' {
			return 0, false
		}
		n = n*10 + int64(key[i+1]-'0')
	}
	return n, n <= 4294967294
}

// number reads a number literal and prints it as Number.prototype.toString does.
func (r *jsonReader) number(out []byte) ([]byte, error) {
	start := r.at
	r.next('-')
	if !r.next('0') && !r.digits() {
		return nil, errJSONSyntax
	}
	if r.next('.') && !r.digits() {
		return nil, errJSONSyntax
	}
	if r.next('e') || r.next('E') {
		if !r.next('+') {
			r.next('-')
		}
		if !r.digits() {
			return nil, errJSONSyntax
		}
	}
	x, err := strconv.ParseFloat(string(r.text[start:r.at]), 64)
	if err != nil {
		// The literal is well formed, so it is out of range: Infinity, printed as null.
		return append(out, "null"...), nil
	}
	return appendNumber(out, x), nil
}

func (r *jsonReader) digits() bool {
	start := r.at
	for r.at < len(r.text) && '0' <= r.text[r.at] && r.text[r.at] <= '9' {
		r.at++
	}
	return r.at > start
}

func appendNumber(out []byte, x float64) []byte {
	abs := x
	if x < 0 {
		abs = -x
	}
	if x == 0 {
		return append(out, '0') // −0 too
	}
	if abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(out, x, 'f', -1, 64)
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(x, 'e', -1, 64), "e")
	sign, digits := exponent[:1], strings.TrimLeft(exponent[1:], "0")
	return append(out, mantissa+"e"+sign+digits...)
}
