package claudeconf

import (
	"reflect"
	"slices"
	"strings"
)

// What became of an item.
const (
	Added     = "added"
	Updated   = "updated"
	Unchanged = "unchanged"
	Removed   = "removed"
	Restored  = "restored" // the file is again what it was before
	Kept      = "kept"     // it is somebody else's, or was changed: Note says why
	Absent    = "absent"
)

// Change says what became of one item.
type Change struct {
	Item   string `json:"item"`
	Action string `json:"action"`
	Path   string `json:"path,omitempty"`
	Note   string `json:"note,omitempty"`
}

// Want says what to put in. Binary is the absolute path of the program, one that outlives this run.
type Want struct {
	Binary                   string
	Hooks, StatusLine, Skill bool
}

// marks are what a file's record remembers beside its bytes: the containers that we made, and the rules that were not there before.
type marks struct {
	Made  [][]string `json:"made,omitempty"`
	Rules []string   `json:"rules,omitempty"`
}

// ensure makes the containers at path where they are missing: objects, and an array in the last place when asked for.
func (d *document) ensure(m *marks, array bool, path ...string) error {
	for i := range path {
		p := steps(path[:i+1])
		v, err := d.at(p...)
		if err != nil {
			return err
		}
		if v != nil {
			continue
		}
		var what any = struct{}{}
		if array && i == len(path)-1 {
			what = []int{}
		}
		if err := d.put(what, p...); err != nil {
			return err
		}
		m.Made = append(m.Made, path[:i+1])
	}
	return nil
}

func steps(path []string) []any {
	out := make([]any, len(path))
	for i, p := range path {
		out[i] = p
	}
	return out
}

// applyServer puts the MCP server into the text of ~/.claude.json.
func applyServer(d *document, m *marks, w Want) (Change, error) {
	c := Change{Item: "mcp server", Action: Unchanged}
	if _, _, err := d.length('{', "mcpServers"); err != nil {
		return c, err
	}
	want := server{"stdio", w.Binary, []string{"mcp"}}
	v, err := d.at("mcpServers", ServerName)
	switch {
	case err != nil:
		return c, err
	case v == nil:
		c.Action = Added
		if err := d.ensure(m, false, "mcpServers"); err != nil {
			return c, err
		}
		return c, d.put(want, "mcpServers", ServerName)
	case v.Value.Kind() != '{':
		c.Action = Updated
		return c, d.put(want, "mcpServers", ServerName)
	}
	// What the user has set beside it (env, alwaysLoad) stays.
	for _, member := range []struct {
		name  string
		value any
	}{{"type", want.Type}, {"command", want.Command}, {"args", want.Args}} {
		changed, err := d.settle(member.value, "mcpServers", ServerName, member.name)
		if err != nil {
			return c, err
		}
		if changed {
			c.Action = Updated
		}
	}
	return c, nil
}

// settle puts a value where another one is, or none.
func (d *document) settle(v any, path ...any) (changed bool, err error) {
	old := reflect.New(reflect.TypeOf(v))
	if d.read(old.Interface(), path...) && reflect.DeepEqual(old.Elem().Interface(), v) {
		return false, nil
	}
	return true, d.put(v, path...)
}

// applyHooks puts our hooks into the text of settings.json. Entries of the program that ours replaces, and of an older place of ours, make room.
func applyHooks(d *document, m *marks, w Want) (Change, error) {
	c := Change{Item: "hooks", Action: Unchanged}
	if _, _, err := d.length('{', "hooks"); err != nil {
		return c, err
	}
	removed, added := 0, 0
	for _, event := range events() {
		want := hooksOf(w.Binary, event)
		if _, _, err := d.length('[', "hooks", event); err != nil {
			return c, err
		}
		n, err := d.removeHooks(event, func(matcher string, h hook) bool {
			i := slices.Index(want.Hooks, h)
			if i < 0 || strings.Trim(matcher, "*") != "" {
				return true
			}
			want.Hooks = slices.Delete(slices.Clone(want.Hooks), i, i+1)
			return false
		}, false)
		if err != nil {
			return c, err
		}
		removed += n
		if len(want.Hooks) == 0 {
			continue
		}
		added += len(want.Hooks)
		if err := d.ensure(m, true, "hooks", event); err != nil {
			return c, err
		}
		if err := d.push(want, "hooks", event); err != nil {
			return c, err
		}
	}
	switch {
	case removed > 0:
		c.Action = Updated
	case added > 0:
		c.Action = Added
	}
	return c, nil
}

// removeHooks removes hooks of ours of one event, where drop says so, and the groups that are empty then. It returns how many it removed.
func (d *document) removeHooks(event string, drop func(matcher string, h hook) bool, every bool) (removed int, err error) {
	groups, there, err := d.length('[', "hooks", event)
	if !there || err != nil {
		return 0, nil // of another kind: not ours
	}
	for g := groups - 1; g >= 0; g-- {
		n, there, err := d.length('[', "hooks", event, g, "hooks")
		if !there || err != nil {
			continue
		}
		var matcher string
		d.read(&matcher, "hooks", event, g, "matcher")
		here := 0
		for i := n - 1; i >= 0; i-- {
			var h hook
			if !d.read(&h, "hooks", event, g, "hooks", i) || h.Type != "command" || !isHook(h.Command) || !every && !drop(matcher, h) {
				continue
			}
			if err := d.cut(i, "hooks", event, g, "hooks"); err != nil {
				return removed, err
			}
			here++
		}
		if removed += here; here > 0 && d.empty("hooks", event, g, "hooks") {
			if err := d.cut(g, "hooks", event); err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}

// applyRules puts the permission rules in.
func applyRules(d *document, m *marks) (Change, error) {
	c := Change{Item: "permissions", Action: Unchanged}
	if _, _, err := d.length('{', "permissions"); err != nil {
		return c, err
	}
	if _, _, err := d.length('[', "permissions", "allow"); err != nil {
		return c, err
	}
	for _, rule := range Rules() {
		if i, err := d.indexOf(rule); i >= 0 || err != nil {
			if err != nil {
				return c, err
			}
			continue
		}
		if err := d.ensure(m, true, "permissions", "allow"); err != nil {
			return c, err
		}
		if err := d.push(rule, "permissions", "allow"); err != nil {
			return c, err
		}
		m.Rules = append(m.Rules, rule)
		c.Action = Added
	}
	return c, nil
}

// indexOf is where a rule stands in permissions.allow, or -1.
func (d *document) indexOf(rule string) (int, error) {
	n, _, err := d.length('[', "permissions", "allow")
	if err != nil {
		return -1, err
	}
	for i := range n {
		var s string
		if d.read(&s, "permissions", "allow", i) && s == rule {
			return i, nil
		}
	}
	return -1, nil
}

// applyStatusLine sets the status line, unless it is somebody else's.
func applyStatusLine(d *document, w Want) (Change, error) {
	c := Change{Item: "status line", Action: Unchanged}
	want := statusLine{"command", shellQuote(w.Binary) + " status-line"}
	v, err := d.at("statusLine")
	if err != nil {
		return c, err
	}
	if v == nil {
		c.Action = Added
		return c, d.put(want, "statusLine")
	}
	var old statusLine
	if !d.read(&old, "statusLine") || !isStatusLine(old.Command) {
		c.Action, c.Note = Kept, "another one is set; remove statusLine from the file to have ours"
		return c, nil
	}
	changed, err := d.settle(want.Command, "statusLine", "command")
	if changed {
		c.Action = Updated
	}
	return c, err
}

// strip takes our entries out of either file, and containers that we made and that are empty now. With known marks only the rules that we added go.
func strip(d *document, m *marks) (removed []string, err error) {
	if v, err := d.at("mcpServers"); err == nil && v != nil && v.Value.Kind() == '{' {
		var s server
		if d.read(&s, "mcpServers", ServerName) && slices.Equal(s.Args, []string{"mcp"}) {
			if err := d.drop("mcpServers", ServerName); err != nil {
				return nil, err
			}
			removed = append(removed, "mcp server")
		}
	}
	hooks := 0
	if v, err := d.at("hooks"); err == nil && v != nil && v.Value.Kind() == '{' {
		for _, event := range events() {
			n, err := d.removeHooks(event, nil, true)
			if err != nil {
				return nil, err
			}
			hooks += n
		}
	}
	if hooks > 0 {
		removed = append(removed, "hooks")
	}
	rules := Rules()
	if m != nil {
		rules = m.Rules
	}
	n := 0
	for _, rule := range rules {
		i, err := d.indexOf(rule)
		if err != nil || i < 0 {
			continue // gone, or the list is something else now
		}
		if err := d.cut(i, "permissions", "allow"); err != nil {
			return nil, err
		}
		n++
	}
	if n > 0 {
		removed = append(removed, "permissions")
	}
	var line statusLine
	if d.read(&line, "statusLine") && isStatusLine(line.Command) {
		if err := d.drop("statusLine"); err != nil {
			return nil, err
		}
		removed = append(removed, "status line")
	}
	if m == nil {
		return removed, nil
	}
	for _, path := range slices.Backward(m.Made) {
		if p := steps(path); d.empty(p...) {
			if err := d.drop(p...); err != nil {
				return nil, err
			}
		}
	}
	return removed, nil
}
