package claudeconf

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/tailscale/hujson"
)

// Changing JSON text without touching the rest of it: the parser says where things are, and every change is a cut or an insertion of bytes.

// Limits of a file that is edited. The client's own grow with its history, to some megabytes.
const (
	maxBytes = 64 << 20
	maxDepth = 500 // the parser recurses
)

// ErrNotJSON is wrapped when a file is not one JSON object, and ErrShape when a value that must hold our entries is of another kind. Nothing was changed.
var (
	ErrNotJSON = errors.New("not a JSON object")
	ErrShape   = errors.New("of an unexpected kind")
)

// document is the text of a JSON object. Each change parses anew, so that positions are never stale.
type document struct {
	mark []byte // the byte order mark in front, if there is one
	text []byte
	root hujson.Value
}

// bytes is the whole file.
func (d *document) bytes() []byte { return slices.Concat(d.mark, d.text) }

// parseDocument reads text. Comments and trailing commas are let stand; an empty text is an empty object.
func parseDocument(text []byte) (*document, error) {
	d := &document{}
	if bom := []byte("\ufeff"); bytes.HasPrefix(text, bom) {
		d.mark, text = bom, text[len(bom):]
	}
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("{}\n")
	}
	return d, d.set(text)
}

func (d *document) set(text []byte) error {
	if len(text) > maxBytes {
		return fmt.Errorf("%w: it is larger than %d MiB", ErrNotJSON, maxBytes>>20)
	}
	if depth(text) > maxDepth {
		return fmt.Errorf("%w: it is nested too deeply", ErrNotJSON)
	}
	v, err := hujson.Parse(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotJSON, err)
	}
	if _, ok := v.Value.(*hujson.Object); !ok {
		return fmt.Errorf("%w: it holds %s", ErrNotJSON, kindName(v.Value))
	}
	d.text, d.root = text, v
	return nil
}

// splice replaces text[from:to].
func (d *document) splice(from, to int, with string) error {
	return d.set(slices.Concat(d.text[:from], []byte(with), d.text[to:]))
}

// depth is how deeply text nests at most.
func depth(text []byte) int {
	deepest, now := 0, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case c == '/' && i+1 < len(text) && text[i+1] == '/':
			i = skipTo(text, i+2, "\n")
		case c == '/' && i+1 < len(text) && text[i+1] == '*':
			i = skipTo(text, i+2, "*/")
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// skipTo is the position of the last byte of the next end, or of the text.
func skipTo(text []byte, from int, end string) int {
	if n := bytes.Index(text[from:], []byte(end)); n >= 0 {
		return from + n + len(end) - 1
	}
	return len(text)
}

func kindName(v hujson.ValueTrimmed) string {
	switch v.Kind() {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	}
	return "a number"
}

// commaFrom finds the comma behind white space and comments at from; -1 when something else follows.
func commaFrom(text []byte, from int) int {
	for i := from; i < len(text); i++ {
		switch c := text[i]; {
		case c == ',':
			return i
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case c == '/' && i+1 < len(text) && text[i+1] == '/':
			i = skipTo(text, i+2, "\n")
		case c == '/' && i+1 < len(text) && text[i+1] == '*':
			i = skipTo(text, i+2, "*/")
		default:
			return -1
		}
	}
	return -1
}

// blank reports whether text[from:to] holds white space only.
func (d *document) blank(from, to int) bool { return len(bytes.TrimSpace(d.text[from:to])) == 0 }

// put sets the member at path, whose parent is there: a new one becomes the last.
func (d *document) put(v any, path ...any) error {
	old, err := d.at(path...)
	if err != nil {
		return err
	}
	in, err := d.container(path[:len(path)-1])
	if err != nil {
		return err
	}
	if old != nil {
		return d.splice(old.StartOffset, old.EndOffset, in.render(v))
	}
	colon := ": "
	if in.flat && !bytes.Contains(d.text, []byte(`": `)) {
		colon = ":"
	}
	return d.insert(in, marshal(path[len(path)-1])+colon+in.render(v))
}

// push appends an element to the array at path, which is there.
func (d *document) push(v any, path ...any) error {
	in, err := d.container(path)
	if err != nil {
		return err
	}
	return d.insert(in, in.render(v))
}

// insert puts item behind the last of a container. What an empty one holds, white space or comments, stays behind the item.
func (d *document) insert(in container, item string) error {
	if n := len(in.items); n > 0 {
		at := in.items[n-1][1]
		return d.splice(at, at, ","+in.before()+item)
	}
	after := in.after()
	if bytes.Contains(d.text[in.open:in.close], []byte("\n")) {
		after = ""
	}
	return d.splice(in.open, in.open, in.before()+item+after)
}

// cut removes item i of the container at path, with one comma. Comments around it stay.
func (d *document) cut(i int, path ...any) error {
	in, err := d.container(path)
	if err != nil {
		return err
	}
	from, to := in.items[i][0], in.items[i][1]
	switch {
	case i > 0:
		comma := commaFrom(d.text, in.items[i-1][1])
		if d.blank(comma+1, from) {
			return d.splice(comma, to, "")
		}
		if err := d.splice(from, to, ""); err != nil { // a trailing comma, for a moment
			return err
		}
		return d.splice(comma, comma+1, "")
	case len(in.items) > 1:
		comma := commaFrom(d.text, to)
		if next := in.items[1][0]; d.blank(comma+1, next) && d.blank(to, comma) {
			return d.splice(from, next, "")
		}
		return d.splice(from, comma+1, "")
	}
	if comma := commaFrom(d.text, to); comma >= 0 && comma < in.close {
		to = comma + 1
	}
	// Alone: what is left is a pair of brackets, unless there is a comment.
	if d.blank(in.open, from) && d.blank(to, in.close) {
		from, to = in.open, in.close
	}
	return d.splice(from, to, "")
}

// drop removes the member at path; it is no error when there is none. A name that occurs twice goes twice.
func (d *document) drop(path ...any) error {
	for {
		v, err := d.at(path[:len(path)-1]...)
		if v == nil || err != nil {
			return err
		}
		o, ok := v.Value.(*hujson.Object)
		if !ok {
			return nil
		}
		m := find(o, path[len(path)-1].(string))
		if m < 0 {
			return nil
		}
		if err := d.cut(m, path[:len(path)-1]...); err != nil {
			return err
		}
	}
}
