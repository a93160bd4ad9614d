package mcp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"claudemesh/mcp/feed"
	"claudemesh/mcp/frame"
)

func TestTheLongestMessageFitsALine(t *testing.T) {
	for _, char := range []string{"<", "\x01", "\"", "\xff", "ä", "<channel>"} {
		it := item("m1", strings.Repeat(char, 1<<20))
		it.FromName, it.Topic, it.Repeat, it.Trust = it.Body, it.Body, true, "changed"
		content, meta := frame.Channel(it)
		raw, err := json.Marshal(channelParams{content, meta})
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 1<<20 || bytes.ContainsRune(raw, '\n') || !utf8.Valid(raw) || !json.Valid(raw) {
			t.Errorf("%q repeated: %d bytes", char, len(raw))
		}
	}
}

func FuzzReadLine(f *testing.F) {
	f.Add([]byte("a\nb\r\n\nc"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(in), 16)
		var out []byte
		for {
			line, err := readLine(r)
			out = append(out, line...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(in, out) {
			t.Fatalf("read %q of %q", out, in)
		}
	})
}

func TestInstructionsFitWhatTheClientKeeps(t *testing.T) {
	long := strings.Repeat("ä", 4000)
	for _, isSession := range []bool{true, false} {
		s := instructions(func(name string) string {
			if name == feed.EnvName {
				return long
			}
			return slug
		}, isSession)
		if len(s) > maxInstructions || !utf8.ValidString(s) || !strings.HasSuffix(s, "do not guess it.\n") {
			t.Errorf("%d bytes, ends %q", len(s), s[len(s)-40:])
		}
	}
}
