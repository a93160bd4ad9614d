package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// What --json, --json=FIELDS and --jq make of a result. Every verb hands its value to ui.result or ui.printJSON and knows nothing of this:
//
//   - An object says by schema_version which promises it keeps: keys are added under the same version, never renamed or given another meaning. An array
//     stays an array, because scripts index it, and so carries no version.
//   - --json=FIELDS keeps the named keys of an object, or of each object of an array, in the order named; a key that one lacks is null.
//   - --jq sees the whole value. Its output takes the value's place.

// schemaVersion is what objects carry as schema_version unless they say otherwise.
const schemaVersion = "1.0"

// printJSON writes v as one JSON value: indented, or on one line.
func (u *ui) printJSON(v any, oneLine bool) error {
	raw, err := marshal(v)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	raw, err = versioned(raw)
	if err != nil {
		return err
	}
	if u.fields != nil {
		raw = u.selected(raw)
	}
	if u.filter != nil {
		return u.filter.print(raw, u.out)
	}
	return u.writeJSON(raw, oneLine)
}

// writeJSON writes a value as it is.
func (u *ui) writeJSON(raw json.RawMessage, oneLine bool) error {
	if !oneLine {
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return fmt.Errorf("indent result: %w", err)
		}
		raw = b.Bytes()
	}
	_, err := u.out.Write(append(raw, '\n'))
	return err
}

// marshal is json.Marshal that leaves <, > and & readable.
func marshal(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// versioned puts schema_version in front of an object's keys, where it has none.
func versioned(raw json.RawMessage) (json.RawMessage, error) {
	keys, ok := object(raw)
	if _, has := keys["schema_version"]; !ok || has {
		return raw, nil
	}
	head := `{"schema_version":"` + schemaVersion + `"`
	if len(keys) > 0 {
		head += ","
	}
	return slices.Concat([]byte(head), bytes.TrimSpace(raw)[1:]), nil
}

// object takes an object apart; ok is false for every other value.
func object(raw json.RawMessage) (keys map[string]json.RawMessage, ok bool) {
	if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		return nil, false
	}
	return keys, json.Unmarshal(raw, &keys) == nil
}

// selected keeps the chosen keys. The verb has run by now, so a key that nothing has is no error any more: it is told on stderr.
func (u *ui) selected(raw json.RawMessage) json.RawMessage {
	keys, ok := object(raw)
	rows := []map[string]json.RawMessage{keys}
	if !ok {
		var elements []json.RawMessage
		if json.Unmarshal(raw, &elements) != nil {
			return raw // a text or a number has no fields
		}
		rows = rows[:0]
		for _, e := range elements {
			if row, ok := object(e); ok {
				rows = append(rows, row)
			}
		}
		if len(rows) != len(elements) {
			return raw
		}
	}
	u.tellUnknown(rows)
	out := make([]json.RawMessage, len(rows))
	for i, row := range rows {
		out[i] = pickKeys(row, u.fields)
	}
	if ok {
		return out[0]
	}
	return slices.Concat([]byte("["), bytes.Join(bytesOf(out), []byte(",")), []byte("]"))
}

func bytesOf(raws []json.RawMessage) [][]byte {
	out := make([][]byte, len(raws))
	for i, r := range raws {
		out[i] = r
	}
	return out
}

func (u *ui) tellUnknown(rows []map[string]json.RawMessage) {
	known := map[string]bool{}
	for _, row := range rows {
		for k := range row {
			known[k] = true
		}
	}
	known["name"] = known["name"] || known["displayName"]
	for _, f := range u.fields {
		if len(rows) > 0 && !known[f] {
			names := make([]string, 0, len(known))
			for k, there := range known {
				if there {
					names = append(names, k)
				}
			}
			slices.Sort(names)
			u.warn("the result has no field %s; it has: %s", quoted(f), cleanLine(strings.Join(names, ", ")))
		}
	}
}

// pickKeys makes an object of some keys of another, in the order asked for. A key that it does not have is null; "name" is displayName where there is no name.
func pickKeys(row map[string]json.RawMessage, fields []string) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range fields {
		value, ok := row[f]
		if !ok && f == "name" {
			value, ok = row["displayName"]
		}
		if !ok {
			value = json.RawMessage("null")
		}
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(f) // a string always encodes
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// fieldList reads the value of --json=FIELDS. Where the verb knows all the fields there can be, one that is none of them is an error before anything is done.
func fieldList(list string, known []string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	fields := strings.Split(list, ",")
	for i, f := range fields {
		fields[i] = strings.TrimSpace(f)
		switch {
		case fields[i] == "":
			return nil, &usageError{message: "--json= names fields, separated by commas", hint: "such as --json=name,status"}
		case known != nil && !slices.Contains(known, fields[i]):
			e := &usageError{message: "unknown field " + quoted(f), hint: "fields: " + strings.Join(known, ", ")}
			if s := nearest(fields[i], known); s != "" {
				e.hint = "did you mean " + s + "?\n" + e.hint
			}
			return nil, e
		}
	}
	return fields, nil
}
