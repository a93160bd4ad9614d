package claudeconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// plan is a file's text before and after, not written yet.
type plan struct {
	path   string
	old    []byte
	absent bool
	new    []byte
	rec    record
}

// errMoved: the client wrote the file while it was being edited.
var errMoved = errors.New("the file was changed meanwhile")

// attempts is how often an edit is begun anew because the client wrote meanwhile.
const attempts = 5

// Install puts everything in that w wants and tells what became of each item. On an error nothing was changed, unless the error says that a file could not be
// written. Skill is the text of our SKILL.md.
func (s Setup) Install(ctx context.Context, w Want, skill []byte) ([]Change, error) {
	release, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	done := map[string]string{} // what an attempt did that had to be begun anew
	for n := 0; ; n++ {
		changes, err := s.install(w, skill, done)
		if errors.Is(err, errMoved) && n < attempts {
			continue
		}
		for i, c := range changes {
			if before := done[c.Item]; before != "" && c.Action == Unchanged {
				changes[i].Action = before
			}
		}
		return changes, err
	}
}

func (s Setup) install(w Want, skill []byte, done map[string]string) ([]Change, error) {
	l, err := s.readLedger()
	if err != nil {
		return nil, err
	}
	// Both are worked out before either is written: a file that cannot be understood stops all of it.
	config, changes, err := s.plan(l, s.Claude.Config, func(d *document, m *marks) ([]Change, error) {
		c, err := applyServer(d, m, w)
		return []Change{c}, err
	})
	if err != nil {
		return nil, err
	}
	settings, more, err := s.plan(l, s.Claude.Settings, func(d *document, m *marks) (all []Change, err error) {
		if w.Hooks {
			c, err := applyHooks(d, m, w)
			if all = append(all, c); err != nil {
				return nil, err
			}
		}
		c, err := applyRules(d, m)
		if all = append(all, c); err != nil || !w.StatusLine {
			return all, err
		}
		c, err = applyStatusLine(d, w)
		return append(all, c), err
	})
	if err != nil {
		return nil, err
	}
	changes = append(changes, more...)
	for _, p := range []*plan{config, settings} {
		if err := s.write(l, p); err != nil {
			return nil, err
		}
		for _, c := range changes {
			if c.Path == p.path && c.Action != Unchanged && c.Action != Kept {
				done[c.Item] = c.Action
			}
		}
	}
	if w.Skill {
		c, err := s.writeSkill(l, skill)
		if err != nil {
			return nil, fmt.Errorf("write skill: %w", err)
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// plan works out what a file shall hold.
func (s Setup) plan(l *ledger, path string, apply func(*document, *marks) ([]Change, error)) (*plan, []Change, error) {
	text, absent, err := readFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	p := &plan{path: path, old: text, absent: absent, rec: l.Files[path]}
	if p.rec.Wrote == "" {
		p.rec.Original, p.rec.Absent = text, absent
	} else if p.rec.Original, p.rec.Absent, _, err = p.rec.baseline(text, absent); err != nil {
		return nil, nil, fmt.Errorf("edit %s: %w", path, err)
	}
	d, err := parseDocument(text)
	if err != nil {
		return nil, nil, fmt.Errorf("edit %s: %w", path, err)
	}
	p.rec.Made, p.rec.Rules = slices.Clone(p.rec.Made), slices.Clone(p.rec.Rules)
	changes, err := apply(d, &p.rec.marks)
	if err != nil {
		return nil, nil, fmt.Errorf("edit %s: %w", path, err)
	}
	for i := range changes {
		changes[i].Path = path
	}
	p.rec.tidy()
	p.new = d.bytes()
	p.rec.Wrote = sum(p.new)
	if !slices.ContainsFunc(changes, func(c Change) bool { return c.Action == Added || c.Action == Updated }) {
		p.new = nil
	}
	return p, changes, nil
}

// write carries a plan out: our record first, then the file.
func (s Setup) write(l *ledger, p *plan) error {
	if p.new == nil {
		return nil
	}
	made, err := makeDirs(filepath.Dir(p.path))
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	l.remember(made)
	l.Files[p.path] = p.rec
	if err := s.writeLedger(l); err != nil {
		return fmt.Errorf("remember what was there before: %w", err)
	}
	// The client writes these files, too. What is left is the moment between this look and the rename.
	if now, absent, err := readFile(p.path); err != nil || absent != p.absent || !bytes.Equal(now, p.old) {
		return errors.Join(errMoved, err)
	}
	if err := replaceFile(p.path, p.new); err != nil {
		return fmt.Errorf("write %s: %w", p.path, err)
	}
	return nil
}

// writeSkill writes our SKILL.md. One that somebody has changed, or put there, is kept.
func (s Setup) writeSkill(l *ledger, text []byte) (Change, error) {
	path := s.Claude.Skill
	c := Change{Item: "skill", Action: Added, Path: path}
	old, absent, err := readFile(path)
	switch {
	case err != nil:
		return c, err
	case !absent && bytes.Equal(old, text):
		c.Action = Unchanged
		if l.Skill[path] == sum(text) {
			return c, nil
		}
	case !absent && l.Skill[path] != sum(old):
		c.Action, c.Note = Kept, "it is not what we wrote; remove it to have ours"
		return c, nil
	case !absent:
		c.Action = Updated
	}
	made, err := makeDirs(filepath.Dir(path))
	if err != nil {
		return c, err
	}
	l.remember(made)
	l.Skill[path] = sum(text)
	if err := s.writeLedger(l); err != nil || c.Action == Unchanged {
		return c, err
	}
	if err := replaceFile(path, text); err != nil {
		return c, err
	}
	return c, os.Chmod(path, 0o644) // it is no secret
}
