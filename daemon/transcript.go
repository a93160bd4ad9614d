package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
)

// transcript is a client's record of a conversation, one JSON object a line, read as it grows. The daemon looks for the ids of messages in it and for nothing
// else; it is told the path by a program of this user, and opens regular files only.
type transcript struct {
	path   string
	offset int64
	rest   []byte // an unfinished line
	skip   bool   // the line is too long: the rest of it is passed over
}

const (
	transcriptChunk = 256 << 10
	transcriptLine  = 16 << 20 // no client writes longer ones, see the limit of a line of MCP
	transcriptOnce  = 64 << 20 // read at one time; more is left for the next
)

// open starts to read at offset; a negative one means the end of what is there.
func (t *transcript) open(path string, offset int64) {
	*t = transcript{path: path, offset: offset}
	if offset < 0 {
		t.offset = 0
		if st, err := os.Stat(path); err == nil {
			t.offset = st.Size()
		}
	}
}

// read returns the ids in what has been added since the last time. A file that is not there (yet), or has become shorter, is not an error.
func (t *transcript) read() (found map[string]bool, err error) {
	if t.path == "" {
		return nil, nil
	}
	st, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look at transcript: %w", err)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("transcript %s is no regular file", t.path)
	case st.Size() < t.offset:
		t.open(t.path, 0) // replaced
	}
	if st.Size() == t.offset {
		return nil, nil
	}
	f, err := os.Open(t.path)
	if err != nil {
		return nil, fmt.Errorf("open transcript: %w", err)
	}
	defer f.Close()
	found = map[string]bool{}
	buf := make([]byte, transcriptChunk)
	for total := 0; total < transcriptOnce; {
		n, err := f.ReadAt(buf, t.offset)
		t.offset += int64(n)
		total += n
		t.take(buf[:n], found)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, fmt.Errorf("read transcript: %w", err)
		}
	}
	return found, nil
}

func (t *transcript) take(data []byte, found map[string]bool) {
	for len(data) > 0 {
		line, more, whole := bytes.Cut(data, []byte("\n"))
		if !t.skip {
			t.rest = append(t.rest, line...)
			t.skip = len(t.rest) > transcriptLine
		}
		if whole {
			if !t.skip {
				shownIn(t.rest, found)
			}
			t.rest, t.skip = t.rest[:0], false
		}
		data = more
	}
	if cap(t.rest) > 1<<20 && len(t.rest) == 0 {
		t.rest = nil
	}
}

// idAttribute finds the id of a message in a frame (package frame), however often the text around it was escaped as JSON.
var idAttribute = regexp.MustCompile(`\b(?:message_)?id=\\*"([A-Za-z0-9_.:-]+)\\*"`)

// Lengths of what can be the id of a message, in bytes. They are not in the expression: a counted repetition is compiled into so many states, at the start of every
// process.
const (
	minID = 8
	maxID = 512
)

// Lines that show what is about to be handed to the model and may never be: the client's own queue, and what a hook printed.
var notShown = [][]byte{[]byte(`"type":"queue-operation"`), []byte(`"type":"hook_success"`)}

// shownIn enters the ids that a line of a transcript proves to be before the model. A quotation mark inside of a JSON string is escaped, so no text of a
// message can look like a line of the kinds in notShown.
func shownIn(line []byte, found map[string]bool) {
	for _, kind := range notShown {
		if bytes.Contains(line, kind) {
			return
		}
	}
	for _, m := range idAttribute.FindAllSubmatch(line, -1) {
		if len(m[1]) >= minID && len(m[1]) <= maxID {
			found[string(m[1])] = true
		}
	}
}
