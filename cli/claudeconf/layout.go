package claudeconf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tailscale/hujson"
)

// Where values are in a document, and how it is laid out there: what is put in shall look like what stands around it.

// find returns the last member of that name, as a JSON reader takes it, or -1.
func find(o *hujson.Object, name string) int {
	for i := len(o.Members) - 1; i >= 0; i-- {
		if l, ok := o.Members[i].Name.Value.(hujson.Literal); ok && l.String() == name {
			return i
		}
	}
	return -1
}

// at is the value at path, whose steps are names of members and indices of elements; nil when there is none. ErrShape when a value on the way is of a kind
// that has no such step.
func (d *document) at(path ...any) (*hujson.Value, error) {
	v := &d.root
	for i, step := range path {
		switch step := step.(type) {
		case string:
			o, ok := v.Value.(*hujson.Object)
			if !ok {
				return nil, fmt.Errorf("%s is %s, not an object: %w", dotted(path[:i]), kindName(v.Value), ErrShape)
			}
			m := find(o, step)
			if m < 0 {
				return nil, nil
			}
			v = &o.Members[m].Value
		case int:
			a, ok := v.Value.(*hujson.Array)
			if !ok {
				return nil, fmt.Errorf("%s is %s, not an array: %w", dotted(path[:i]), kindName(v.Value), ErrShape)
			}
			if step >= len(a.Elements) {
				return nil, nil
			}
			v = &a.Elements[step]
		}
	}
	return v, nil
}

func dotted(path []any) string {
	var b strings.Builder
	for _, step := range path {
		if name, ok := step.(string); ok && b.Len() > 0 {
			b.WriteString("." + name)
		} else {
			fmt.Fprint(&b, step)
		}
	}
	return b.String()
}

// length is how many items the container of that kind ('{' or '[') at path has: 0 when there is none, ErrShape when it is something else.
func (d *document) length(kind hujson.Kind, path ...any) (n int, there bool, err error) {
	v, err := d.at(path...)
	if v == nil || err != nil {
		return 0, false, err
	}
	if v.Value.Kind() != kind {
		want := "an object"
		if kind == '[' {
			want = "an array"
		}
		return 0, true, fmt.Errorf("%s is %s, not %s: %w", dotted(path), kindName(v.Value), want, ErrShape)
	}
	return len(items(v)), true, nil
}

// read decodes the value at path, comments left out. It reports false when there is none, or it does not fit.
func (d *document) read(out any, path ...any) bool {
	v, err := d.at(path...)
	if v == nil || err != nil {
		return false
	}
	c := v.Clone()
	c.Minimize()
	return json.Unmarshal(c.Pack(), out) == nil
}

// empty reports whether the container at path is there and holds nothing, no comment either.
func (d *document) empty(path ...any) bool {
	v, err := d.at(path...)
	if v == nil || err != nil || v.Value.Kind() != '{' && v.Value.Kind() != '[' {
		return false
	}
	return d.blank(v.StartOffset+1, v.EndOffset-1)
}

// items are the places of a container's members or elements.
func items(v *hujson.Value) [][2]int {
	var at [][2]int
	switch c := v.Value.(type) {
	case *hujson.Object:
		for _, m := range c.Members {
			at = append(at, [2]int{m.Name.StartOffset, m.Value.EndOffset})
		}
	case *hujson.Array:
		for _, e := range c.Elements {
			at = append(at, [2]int{e.StartOffset, e.EndOffset})
		}
	}
	return at
}

// container is an object or array in the text, and its layout.
type container struct {
	items       [][2]int
	open, close int // behind the opening bracket, and of the closing one
	flat        bool
	space       string // between items, when flat
	eol         string
	unit        string // one step of indentation
	indent      string // of its items
	outer       string // of its closing bracket
}

// container describes the object or array at path, which is there.
func (d *document) container(path []any) (container, error) {
	v, err := d.at(path...)
	if err != nil {
		return container{}, err
	}
	if v == nil || v.Value.Kind() != '{' && v.Value.Kind() != '[' {
		return container{}, fmt.Errorf("%s holds nothing: %w", dotted(path), ErrShape)
	}
	c := container{items: items(v), open: v.StartOffset + 1, close: v.EndOffset - 1, eol: "\n", unit: d.unit()}
	if bytes.Contains(d.text, []byte("\r\n")) {
		c.eol = "\r\n"
	}
	if len(path) > 0 {
		parent, err := d.container(path[:len(path)-1])
		if err != nil {
			return container{}, err
		}
		c.flat, c.outer = parent.flat, parent.indent
	}
	c.indent = c.outer + c.unit
	if n := len(c.items); n > 0 {
		start := c.items[n-1][0]
		indent := blanksBefore(d.text, start)
		newline := start > len(indent) && d.text[start-len(indent)-1] == '\n'
		switch c.flat = !newline; {
		case newline:
			c.indent = indent
		case n > 1:
			c.space = indent
		}
	}
	return c, nil
}

// unit is one step of indentation: that of the first member.
func (d *document) unit() string {
	if at := items(&d.root); len(at) > 0 {
		if s := blanksBefore(d.text, at[0][0]); s != "" && at[0][0] > len(s) && d.text[at[0][0]-len(s)-1] == '\n' {
			return s
		}
	}
	return "  "
}

// blanksBefore is the run of blanks and tabs that ends at a position.
func blanksBefore(text []byte, at int) string {
	from := at
	for from > 0 && (text[from-1] == ' ' || text[from-1] == '\t') {
		from--
	}
	return string(text[from:at])
}

func (c container) before() string {
	if c.flat {
		return c.space
	}
	return c.eol + c.indent
}

func (c container) after() string {
	if c.flat {
		return ""
	}
	return c.eol + c.outer
}

// render is v as an item of the container.
func (c container) render(v any) string {
	text := marshal(v)
	if c.flat {
		return text
	}
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), c.indent, c.unit); err != nil {
		return text
	}
	return strings.ReplaceAll(b.String(), "\n", c.eol)
}

// marshal is v in one line. Only values of ours are put in, and they have no kind that cannot be encoded.
func marshal(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
