package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// existsError: a file is in the way and nobody said that it may go.
type existsError struct{ path string }

func (e *existsError) Error() string { return e.path + " exists already; nothing was written" }

// savedFile is a file being written: complete or not there.
type savedFile struct {
	*os.File
	path string // where it is to be; the file has another name until finish when it replaces one
}

// newFile opens a file to be written, 0600. An existing one is an error unless force is set, and then it is replaced when all is written.
func newFile(path string, force bool) (*savedFile, error) {
	if !force {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return nil, &existsError{path}
		}
		if err != nil {
			return nil, fmt.Errorf("make file: %w", err)
		}
		return &savedFile{File: f, path: path}, nil
	}
	return replaceFile(path)
}

// replaceFile writes beside path and takes its place at the end.
func replaceFile(path string) (*savedFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".part-*")
	if err != nil {
		return nil, fmt.Errorf("make file: %w", err)
	}
	return &savedFile{File: f, path: path}, nil
}

// finish closes the file and puts it in its place, or removes it when err says that it is not complete; err is returned then.
func (s *savedFile) finish(err error) error {
	err = errors.Join(err, s.Close())
	if err == nil && s.Name() != s.path {
		err = os.Rename(s.Name(), s.path)
	}
	if err != nil {
		_ = os.Remove(s.Name())
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}
