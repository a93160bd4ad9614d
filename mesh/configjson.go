package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// fieldReader takes known keys out of a JSON object and keeps the rest. Keys are
// compared exactly, unlike encoding/json, which would fold an unknown "Slug" into
// "slug". After the first failure it reads nothing more.
type fieldReader struct {
	fields map[string]json.RawMessage // what is still unread
	err    error
}

func newFieldReader(text []byte) *fieldReader {
	d := &fieldReader{}
	if err := json.Unmarshal(text, &d.fields); err != nil {
		d.err = errors.New("not a JSON object")
	} else if d.fields == nil {
		d.err = errors.New("null instead of a JSON object")
	}
	return d
}

// read decodes a key into v and takes it out; a missing key leaves v alone.
func (d *fieldReader) read(key string, v any) {
	raw, ok := d.fields[key]
	if !ok || d.err != nil {
		return
	}
	if err := json.Unmarshal(raw, v); err != nil {
		d.fail(key, err)
	}
	delete(d.fields, key)
}

// fail records the first failure. Only the types a decoder met are reported, never
// a value: it could be a key.
func (d *fieldReader) fail(key string, err error) {
	if d.err == nil {
		if t, ok := err.(*json.UnmarshalTypeError); ok {
			err = fmt.Errorf("%s where %s belongs", typeWord(t.Value), t.Type)
		}
		d.err = fmt.Errorf("%q: %w", key, err)
	}
}

// typeWord is the first word of what the decoder met: "number" of "number 12.5".
func typeWord(value string) string {
	word, _, _ := strings.Cut(value, " ")
	return word
}

// fieldWriter builds a JSON object whose keys stay in the order written.
type fieldWriter struct {
	text bytes.Buffer
	err  error
}

func (w *fieldWriter) write(key string, v any) {
	if w.err != nil {
		return
	}
	name, _ := json.Marshal(key)
	var value bytes.Buffer
	enc := json.NewEncoder(&value)
	enc.SetEscapeHTML(false)
	if w.err = enc.Encode(v); w.err != nil {
		return
	}
	if w.text.Len() > 0 {
		w.text.WriteByte(',')
	}
	w.text.Write(name)
	w.text.WriteByte(':')
	w.text.Write(bytes.TrimRight(value.Bytes(), "\n"))
}

func (w *fieldWriter) writeUnlessEmpty(key, v string) {
	if v != "" {
		w.write(key, v)
	}
}

// finish appends the unknown keys, sorted, and closes the object.
func (w *fieldWriter) finish(extra map[string]json.RawMessage) ([]byte, error) {
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		w.write(key, extra[key])
	}
	if w.err != nil {
		return nil, w.err
	}
	return slices.Concat([]byte("{"), w.text.Bytes(), []byte("}")), nil
}
