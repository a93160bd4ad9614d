package claudeconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Uninstall takes everything out that Install has put in, also where the client's files were when it did. It goes on after an error, and returns them all.
func (s Setup) Uninstall(ctx context.Context) (changes []Change, err error) {
	release, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := s.readLedger()
	if err != nil {
		return nil, err
	}
	var errs []error
	paths := slices.Sorted(maps.Keys(l.Files))
	for _, path := range []string{s.Claude.Config, s.Claude.Settings} {
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		c, err := s.undo(l, path)
		for n := 0; errors.Is(err, errMoved) && n < attempts; n++ {
			c, err = s.undo(l, path)
		}
		changes = append(changes, c...)
		if err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", path, err))
			continue
		}
		delete(l.Files, path)
	}
	changes = append(changes, s.removeSkill(l, &errs)...)
	for _, dir := range slices.Backward(l.Dirs) {
		// One that holds something by now is not ours any more.
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !notEmpty(dir) {
			errs = append(errs, err)
			continue
		}
		l.Dirs = slices.DeleteFunc(slices.Clone(l.Dirs), func(d string) bool { return d == dir })
	}
	if err := s.writeLedger(l); err != nil {
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
}

func notEmpty(dir string) bool {
	list, err := os.ReadDir(dir)
	return err == nil && len(list) > 0
}

// undo takes our entries out of one file.
func (s Setup) undo(l *ledger, path string) ([]Change, error) {
	text, absent, err := readFile(path)
	if err != nil {
		return nil, err
	}
	rec, known := l.Files[path]
	if absent && (!known || rec.Absent) {
		return []Change{{Item: filepath.Base(path), Action: Absent, Path: path}}, nil
	}
	var m *marks
	if known {
		m = &rec.marks
		original, wasAbsent, exact, err := rec.baseline(text, absent)
		switch {
		case err != nil:
			return nil, err
		case exact && wasAbsent && !absent:
			return []Change{{Item: filepath.Base(path), Action: Removed, Path: path, Note: "there was none before"}}, s.swap(path, text, nil, true)
		case exact:
			c := Change{Item: filepath.Base(path), Action: Restored, Path: path}
			if bytes.Equal(text, original) {
				c.Action = Unchanged
			}
			return []Change{c}, s.swap(path, text, original, false)
		}
	}
	if absent {
		return []Change{{Item: filepath.Base(path), Action: Absent, Path: path}}, nil
	}
	d, err := parseDocument(text)
	if err != nil {
		return nil, err
	}
	removed, err := strip(d, m)
	if err != nil {
		return nil, err
	}
	if len(removed) == 0 {
		return []Change{{Item: filepath.Base(path), Action: Unchanged, Path: path}}, nil
	}
	note := strings.Join(removed, ", ") + "; the rest was changed since and is kept as it is"
	if !known {
		note = strings.Join(removed, ", ")
	}
	return []Change{{Item: filepath.Base(path), Action: Removed, Path: path, Note: note}}, s.swap(path, text, d.bytes(), false)
}

// swap replaces old by text, or removes the file.
func (s Setup) swap(path string, old, text []byte, remove bool) error {
	if !remove && bytes.Equal(old, text) {
		return nil
	}
	if now, _, err := readFile(path); err != nil || !bytes.Equal(now, old) {
		return errors.Join(errMoved, err)
	}
	if remove {
		return os.Remove(path)
	}
	return replaceFile(path, text)
}

// removeSkill removes the files that we wrote and nobody changed.
func (s Setup) removeSkill(l *ledger, errs *[]error) (changes []Change) {
	for _, path := range slices.Sorted(maps.Keys(l.Skill)) {
		c := Change{Item: "skill", Action: Removed, Path: path}
		text, absent, err := readFile(path)
		switch {
		case err != nil:
		case absent:
			c.Action = Absent
		case sum(text) != l.Skill[path]:
			c.Action, c.Note = Kept, "it was changed since"
		default:
			err = os.Remove(path)
		}
		if err != nil {
			*errs = append(*errs, err)
			continue
		}
		delete(l.Skill, path)
		changes = append(changes, c)
	}
	return changes
}
