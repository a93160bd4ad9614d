package mesh

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The strings of canonical metadata are held as UTF-16 code units, big-endian, two
// bytes each. So a lone surrogate has a place, and comparing two such Go strings
// compares code units, which is the order ECMAScript sorts in.

// str reads a string literal and returns its code units.
func (r *jsonReader) str() (string, error) {
	if !r.next('"') {
		return "", errJSONSyntax
	}
	var units []byte
	for r.at < len(r.text) {
		c, size := utf8.DecodeRune(r.text[r.at:])
		r.at += size
		switch {
		case c == '"':
			return string(units), nil
		case c < 0x20:
			return "", errJSONSyntax
		case c == '\\':
			unit, err := r.escape()
			if err != nil {
				return "", err
			}
			units = binary.BigEndian.AppendUint16(units, unit)
		default:
			units = appendUnits(units, c)
		}
	}
	return "", errJSONSyntax
}

func (r *jsonReader) escape() (uint16, error) {
	if r.at == len(r.text) {
		return 0, errJSONSyntax
	}
	c := r.text[r.at]
	r.at++
	if c == 'u' {
		if r.at+4 > len(r.text) {
			return 0, errJSONSyntax
		}
		var unit uint16
		for _, d := range r.text[r.at : r.at+4] {
			n := strings.IndexByte("0123456789abcdefABCDEF", d)
			if n < 0 {
				return 0, errJSONSyntax
			}
			if n > 15 {
				n -= 6
			}
			unit = unit<<4 | uint16(n)
		}
		r.at += 4
		return unit, nil
	}
	from := strings.IndexByte(`"\/bfnrt`, c)
	if from < 0 {
		return 0, errJSONSyntax
	}
	return uint16("\"\\/\b\f\n\r\t"[from]), nil
}

func appendUnits(units []byte, c rune) []byte {
	if hi, lo := utf16.EncodeRune(c); hi != utf8.RuneError {
		units = binary.BigEndian.AppendUint16(units, uint16(hi))
		return binary.BigEndian.AppendUint16(units, uint16(lo))
	}
	return binary.BigEndian.AppendUint16(units, uint16(c))
}

func utf16Of(s string) string {
	var units []byte
	for _, c := range s {
		units = appendUnits(units, c)
	}
	return string(units)
}

// appendString prints code units as JSON.stringify does.
func appendString(out []byte, units string) []byte {
	const hexDigits = "0123456789abcdef"
	out = append(out, '"')
	for i := 0; i < len(units); i += 2 {
		c := rune(units[i])<<8 | rune(units[i+1])
		if utf16.IsSurrogate(c) {
			if i+2 < len(units) {
				low := rune(units[i+2])<<8 | rune(units[i+3])
				if pair := utf16.DecodeRune(c, low); pair != utf8.RuneError {
					out = utf8.AppendRune(out, pair)
					i += 2
					continue
				}
			}
			out = append(out, '\\', 'u', hexDigits[c>>12], hexDigits[c>>8&15], hexDigits[c>>4&15], hexDigits[c&15])
			continue
		}
		if short := strings.IndexRune("\"\\\b\f\n\r\t", c); short >= 0 {
			out = append(out, '\\', `"\bfnrt`[short])
		} else if c < 0x20 {
			out = append(out, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		} else {
			out = utf8.AppendRune(out, c)
		}
	}
	return append(out, '"')
}
