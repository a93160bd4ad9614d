package mesh

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"testing/iotest"

	"golang.org/x/crypto/nacl/box"
)

type topicVector struct {
	SeedFrom  string `json:"seed_from"`
	SeedTo    string `json:"seed_to"`
	Key       string
	Nonce     []byte // base64
	Text      string
	Post      []byte
	SealedKey []byte `json:"sealed_key"`
}

func topicVectors(t testing.TB) []topicVector {
	t.Helper()
	var file struct{ Vectors []topicVector }
	readVectors(t, "topic-vectors.json", &file)
	if len(file.Vectors) == 0 {
		t.Fatal("no vectors")
	}
	return file.Vectors
}

func identityOf(t testing.TB, seed string) Identity {
	t.Helper()
	id, err := NewIdentity(bytes.NewReader(unhex(t, seed)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTopicKeysAgreeWithLibsodium(t *testing.T) {
	for _, v := range topicVectors(t) {
		key, from, to := TopicKey(unhex(t, v.Key)), identityOf(t, v.SeedFrom), identityOf(t, v.SeedTo)
		t.Run("a post", func(t *testing.T) {
			nonce, sealed, err := key.SealPost([]byte(v.Text), bytes.NewReader(v.Nonce))
			if err != nil || !bytes.Equal(nonce, v.Nonce) || !bytes.Equal(sealed, v.Post) {
				t.Errorf("sealed as %s, %v", base64.StdEncoding.EncodeToString(sealed), err)
			}
			text, err := key.OpenPost(v.Nonce, v.Post)
			if err != nil || string(text) != v.Text {
				t.Errorf("opened as %q, %v", text, err)
			}
		})
		t.Run("a key sealed for a member", func(t *testing.T) {
			nonce, sealed, err := key.SealFor(from, to.PublicKey(), bytes.NewReader(v.Nonce))
			if err != nil || !bytes.Equal(nonce, v.Nonce) || !bytes.Equal(sealed, v.SealedKey) || len(sealed) != SealedTopicKeySize {
				t.Errorf("sealed as %s, %v", base64.StdEncoding.EncodeToString(sealed), err)
			}
			got, err := OpenTopicKey(to, v.Nonce, v.SealedKey)
			if err != nil || got != key {
				t.Errorf("opened as %v, %v", got, err)
			}
		})
	}
}

func TestTopicKeysSealedByAStrangersX25519Key(t *testing.T) {
	// The reference's broker seals a new topic's key with a key pair made for that one purpose.
	to, key := fixedIdentity(t, 2), TopicKey{5}
	public, secret, err := box.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := x25519Public(to.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	nonce := [NonceSize]byte{7}
	sealed := box.Seal(append([]byte{}, public[:]...), key[:], &nonce, recipient, secret)
	if got, err := OpenTopicKey(to, nonce[:], sealed); err != nil || got != key {
		t.Errorf("opened as %v, %v", got, err)
	}
}

func TestWhatIsNoSealedTopicKey(t *testing.T) {
	v := topicVectors(t)[0]
	to := identityOf(t, v.SeedTo)
	changed := func(i int) []byte {
		b := bytes.Clone(v.SealedKey)
		b[i] ^= 1
		return b
	}
	short := box.Seal(nil, []byte("short"), new([NonceSize]byte), new([32]byte), new([32]byte))
	for name, c := range map[string]struct{ nonce, sealed []byte }{
		"another sealer's key":    {v.Nonce, changed(0)},
		"another tag":             {v.Nonce, changed(32)},
		"another key":             {v.Nonce, changed(79)},
		"another nonce":           {make([]byte, NonceSize), v.SealedKey},
		"a short nonce":           {v.Nonce[:23], v.SealedKey},
		"a byte less":             {v.Nonce, v.SealedKey[:79]},
		"a byte more":             {v.Nonce, append(bytes.Clone(v.SealedKey), 0)},
		"nothing":                 {nil, nil},
		"a key of another length": {make([]byte, NonceSize), short},
		"a sealer of small order": {v.Nonce, append(make([]byte, 32), v.SealedKey[32:]...)},
	} {
		t.Run(name, func(t *testing.T) {
			if key, err := OpenTopicKey(to, c.nonce, c.sealed); !errors.Is(err, ErrUndecryptable) || key != (TopicKey{}) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := OpenTopicKey(identityOf(t, v.SeedFrom), v.Nonce, v.SealedKey); !errors.Is(err, ErrUndecryptable) {
		t.Errorf("opened by another member: %v", err)
	}
}

func TestWhatIsNoPost(t *testing.T) {
	v := topicVectors(t)[0]
	key := TopicKey(unhex(t, v.Key))
	for name, c := range map[string]struct{ nonce, sealed []byte }{
		"a short nonce": {v.Nonce[:23], v.Post}, "nothing": {v.Nonce, nil}, "less than a tag": {v.Nonce, v.Post[:15]}, "a byte less": {v.Nonce, v.Post[:len(v.Post)-1]},
	} {
		if _, err := key.OpenPost(c.nonce, c.sealed); !errors.Is(err, ErrUndecryptable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (TopicKey{}).OpenPost(v.Nonce, v.Post); !errors.Is(err, ErrUndecryptable) {
		t.Errorf("another key: %v", err)
	}
}

func TestTopicKeysAreNotPrinted(t *testing.T) {
	key := TopicKey(bytes.Repeat([]byte{0xab}, 32))
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(format, key); s != "[topic key]" {
			t.Errorf("%s prints %s", format, s)
		}
	}
}

func TestTopicKeysNeedRandomnessAndGoodKeys(t *testing.T) {
	none := iotest.ErrReader(errors.New("no entropy"))
	key, me := TopicKey{1}, fixedIdentity(t, 1)
	if _, err := NewTopicKey(none); err == nil {
		t.Error("a key out of nothing")
	}
	if _, _, err := key.SealPost(nil, none); err == nil {
		t.Error("a nonce out of nothing")
	}
	if _, _, err := key.SealFor(me, me.PublicKey(), none); err == nil {
		t.Error("a sealed key out of nothing")
	}
	if _, _, err := key.SealFor(me, "00", rand.Reader); !errors.Is(err, ErrWeakKey) {
		t.Errorf("sealed for a weak key: %v", err)
	}
	if _, _, err := key.SealFor(Identity{}, me.PublicKey(), rand.Reader); err == nil {
		t.Error("sealed by nobody")
	}
}

func FuzzOpenTopicKey(f *testing.F) {
	v := topicVectors(f)[0]
	to, key := identityOf(f, v.SeedTo), TopicKey(unhex(f, v.Key))
	f.Add(v.Nonce, v.SealedKey)
	f.Add(v.Nonce, v.Post)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, nonce, sealed []byte) {
		// Nobody makes one that authenticates by trying. (The sealer's key has one spare bit, so the same one has two spellings.)
		if got, err := OpenTopicKey(to, nonce, sealed); err == nil && got != key {
			t.Errorf("opened %x", sealed)
		}
		if text, err := key.OpenPost(nonce, sealed); err == nil && string(text) != v.Text {
			t.Errorf("opened %x", sealed)
		}
	})
}
