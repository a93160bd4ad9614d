package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// seenKeys remembers, over restarts, which topics have ever had a key, and the newest generation of it: to such a topic nothing is ever posted in clear, or
// under an older key, whatever a broker says later.
type seenKeys struct {
	path string

	mu   sync.Mutex
	read bool
	of   map[string]int
}

// seenKeysDir holds one file per mesh, in the daemon directory.
const seenKeysDir = "topics"

func (s *seenKeys) newest(id string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return 0, err
	}
	return s.of[id], nil
}

func (s *seenKeys) note(id string, generation int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil || s.of[id] >= generation {
		return err
	}
	s.of[id] = generation
	data, err := json.Marshal(s.of)
	if err != nil {
		return fmt.Errorf("encode topic generations: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return fmt.Errorf("make directory of topic generations: %w", err)
	}
	return writePrivate(s.path, string(data)+"\n")
}

func (s *seenKeys) load() error {
	if s.read {
		return nil
	}
	of := map[string]int{}
	data, err := os.ReadFile(s.path)
	if err == nil {
		err = json.Unmarshal(data, &of)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read topic generations: %w", err)
	}
	s.of, s.read = of, true
	return nil
}
