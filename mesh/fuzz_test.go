package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzFingerprint(f *testing.F) {
	var file struct{ Vectors []fingerprintVector }
	readVectors(f, "fingerprint-vectors.json", &file)
	for _, v := range file.Vectors {
		var meta []byte
		if v.Input.MetaJSON != nil {
			meta = []byte(*v.Input.MetaJSON)
		}
		f.Add(v.Input.Ref, v.Input.Body, v.Input.Priority, v.Input.ReplyTo, meta)
	}
	f.Add("@x", "", "", "", []byte(strings.Repeat(`{"a":[`, 40)))
	f.Add("*", "", "low", "", []byte(`{"\ud83d\ude00":"\uDe00\ud83d"}`))
	f.Fuzz(func(t *testing.T, to, body, priority, reply string, meta []byte) {
		fp, err := FingerprintOf(to, body, priority, reply, meta)
		canonical, metaErr := canonicalMeta(meta)
		if err == nil && metaErr != nil {
			t.Fatalf("fingerprint in spite of %v", metaErr)
		}
		if metaErr != nil {
			return
		}
		if len(meta) > 0 && !json.Valid(meta) {
			t.Fatalf("%q was read", meta)
		}
		if !utf8.Valid(canonical) || len(canonical) > 0 && !json.Valid(canonical) {
			t.Fatalf("canonical form %q", canonical)
		}
		// An infinity at the top prints as null, which is no meta when read again;
		// escapes may grow a text past the length that is read.
		if len(canonical) > MaxMeta || string(canonical) == "null" {
			return
		}
		again, againErr := canonicalMeta(canonical)
		if againErr != nil || !bytes.Equal(again, canonical) {
			t.Fatalf("%q became %q, %v", canonical, again, againErr)
		}
		if second, secondErr := FingerprintOf(to, body, priority, reply, canonical); second != fp || (secondErr == nil) != (err == nil) {
			t.Fatalf("%x, %v became %x, %v", fp, err, second, secondErr)
		}
	})
}

func FuzzParseInvite(f *testing.F) {
	_, token, err := NewInvite(fixedIdentity(f, 3), vectorInvite())
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{token, InviteLink(token), "https://h/es/join/" + token, "https://h/i/ABCD2345", "h/i/x", "ABCD2345", "", "://", "https://[::1", "%zz/i/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		in, got, err := ParseInvite(s)
		if err != nil {
			if !errors.Is(err, ErrInviteMalformed) && !errors.Is(err, ErrInviteSignature) && !errors.Is(err, ErrInviteCode) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if !strings.Contains(s, got) || in.check() != nil {
			t.Fatalf("%q gives %v", s, in)
		}
		if again, token, err := ParseInvite(InviteLink(got)); err != nil || again != in || token != got {
			t.Fatalf("the link of %q gives %v, %v", got, again, err)
		}
	})
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"*", "@all", "@g", "#t", "bob", fixedIdentity(f, 1).PublicKey(), strings.Repeat("AB", 10), "\ufeff\u0085", "\u212a" + strings.Repeat("a", 15)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := ParseTarget(s)
		if err != nil {
			if !errors.Is(err, ErrBadTarget) || target != (Target{}) {
				t.Fatalf("%+v, %v", target, err)
			}
			return
		}
		if target.Typed == "" || len(target.Typed) > MaxTarget || !strings.Contains(s, target.Typed) {
			t.Fatalf("typed %q", target.Typed)
		}
		if (target.Ref == "") != (target.Kind == TargetAll) {
			t.Fatalf("%+v", target)
		}
		if target.Kind == TargetKey && !ValidKey(target.Ref) {
			t.Fatalf("%+v", target)
		}
		if again, err := ParseTarget(target.Typed); err != nil || again != target {
			t.Fatalf("%+v became %+v, %v", target, again, err)
		}
		if _, err := FingerprintOf(s, "", "", "", nil); err != nil {
			t.Fatalf("a legal target has no fingerprint: %v", err)
		}
		Resolve(target, []Candidate{{Key: target.Ref, Name: s}, {Key: testKey("a"), MemberKey: s}})
	})
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{sampleConfig, "{}", "null", `{"meshes":[{}]}`, `{"meshes":[{"slug":"a","slug":"b","x":{"y":[1e400]}}],"__proto__":1}`, "{\"\xff\":1}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig(text)
		if err != nil {
			if !errors.Is(err, ErrConfigCorrupt) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		once, err := formatConfig(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseConfig(once)
		if err != nil {
			t.Fatalf("cannot be read again: %v\n%s", err, once)
		}
		if twice, err := formatConfig(back); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\nbecame\n%s", once, twice)
		}
		if len(back.Meshes) != len(c.Meshes) || len(back.extra) != len(c.extra) {
			t.Fatal("entries or keys were lost")
		}
	})
}
