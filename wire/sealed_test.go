package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestVaultRequests(t *testing.T) {
	good := VaultSet{Key: "K", Ciphertext: "x", Nonce: "x", SealedKey: "x", EntryType: VaultEnv}
	long := strings.Repeat("x", 5000)
	edit := func(f func(*VaultSet)) VaultSet { s := good; f(&s); return s }
	for _, c := range []struct {
		name string
		in   interface{ Validate() error }
		ok   bool
	}{
		{"an entry", good, true},
		{"an entry without a key", edit(func(s *VaultSet) { s.Key = "" }), false},
		{"an entry with a key of two lines", edit(func(s *VaultSet) { s.Key = "a\nb" }), false},
		{"an entry with a long key", edit(func(s *VaultSet) { s.Key = long }), false},
		{"an entry of another kind", edit(func(s *VaultSet) { s.EntryType = "" }), false},
		{"an entry without a nonce", edit(func(s *VaultSet) { s.Nonce = "" }), false},
		{"an entry that is too large", edit(func(s *VaultSet) { s.Ciphertext = strings.Repeat("x", MaxVaultBoxBytes+1) }), false},
		{"an entry with a long description", edit(func(s *VaultSet) { s.Description = &long }), false},
		{"a deletion without a key", VaultKey{}, false},
		{"a question for a key", VaultGet{Keys: []string{"a"}}, true},
		{"a question for no key", VaultGet{}, false},
		{"a question for too many", VaultGet{Keys: slices.Repeat([]string{"a"}, MaxVaultKeys+1)}, false},
		{"a question for a nameless key", VaultGet{Keys: []string{"a", ""}}, false},
	} {
		t.Run(c.name+fmt.Sprintf(" is good: %v", c.ok), func(t *testing.T) {
			if err := c.in.Validate(); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
		})
	}
}

func TestWhatAFileMayBeCalled(t *testing.T) {
	for _, name := range []string{"a", "a b.txt", "plan.tar.gz", ".env", "...", "äöü – 文件.pdf", "-rf", strings.Repeat("x", 255)} {
		if err := CheckFileName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "/", "a/b", "../x", `..\x`, "a\x00b", "a\nb", "\x1b[31m", "a\u202eb", "\xff", strings.Repeat("x", 256)} {
		if err := CheckFileName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q was taken", name)
		}
	}
}

func TestHeadersOfAnUpload(t *testing.T) {
	key := strings.Repeat("ab", 32)
	t.Run("keys", func(t *testing.T) {
		got, err := ParseFileKeys(`[{"peerPubkey":"` + key + `","sealedKey":"x"}]`)
		if err != nil || len(got) != 1 || got[0] != (FileKey{key, "x"}) {
			t.Error(got, err)
		}
		for _, bad := range []string{
			`{}`, `[1]`, `[{}]`, `[{"peerPubkey":"bob","sealedKey":"x"}]`, `[{"peerPubkey":"` + key + `"}]`,
			`[{"peerPubkey":"` + key + `","sealedKey":"` + strings.Repeat("x", 600) + `"}]`,
			`[` + strings.TrimSuffix(strings.Repeat(`{"peerPubkey":"`+key+`","sealedKey":"x"},`, MaxFileKeys+1), ",") + `]`,
		} {
			if got, err := ParseFileKeys(bad); err == nil {
				t.Errorf("%.60s: %v", bad, got)
			}
		}
	})
	t.Run("tags", func(t *testing.T) {
		if got, err := ParseFileTags(`["a","b c"]`); err != nil || !slices.Equal(got, []string{"a", "b c"}) {
			t.Error(got, err)
		}
		if got, err := ParseFileTags(""); err != nil || got == nil {
			t.Error("no tags are an empty list", got, err)
		}
		for _, bad := range []string{`a,b`, `null`, `[""]`, `["` + strings.Repeat("x", 65) + `"]`, `[` + strings.TrimSuffix(strings.Repeat(`"x",`, 33), ",") + `]`} {
			if got, err := ParseFileTags(bad); err == nil {
				t.Errorf("%.60s: %v", bad, got)
			}
		}
	})
}

func TestAnAnswerToAGrantHasTheFieldsAtTheTop(t *testing.T) {
	data, err := json.Marshal(GrantFileAccess{Type: TypeGrantFileAccess, FileID: "f", FileKey: FileKey{"p", "s"}})
	if err != nil || string(data) != `{"type":"grant_file_access","fileId":"f","peerPubkey":"p","sealedKey":"s"}` {
		t.Errorf("%s %v", data, err)
	}
	found := false
	data, err = json.Marshal(FileDeleted{Ack: Ack{Type: TypeAck, ID: "f", MessageID: "f", ReqID: "r"}, Found: &found})
	if err != nil || string(data) != `{"type":"ack","id":"f","messageId":"f","queued":false,"_reqId":"r","found":false}` {
		t.Errorf("%s %v", data, err)
	}
}

func FuzzUploadHeaders(f *testing.F) {
	f.Add(`[{"peerPubkey":"`+strings.Repeat("ab", 32)+`","sealedKey":"x"}]`, `["a"]`, "a.txt")
	f.Add(`[`, `{}`, "../..")
	f.Fuzz(func(t *testing.T, keys, tags, name string) {
		if got, err := ParseFileKeys(keys); err == nil && len(got) > MaxFileKeys {
			t.Error(len(got))
		}
		if got, err := ParseFileTags(tags); err == nil && (got == nil || len(got) > MaxFileTags) {
			t.Error(got)
		}
		if CheckFileName(name) == nil && strings.ContainsAny(name, "/\\\x00\n") {
			t.Errorf("%q", name)
		}
	})
}
