package mesh

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

// sealedVectors were made by clients of the reference and by libsodium.
type sealedVectors struct {
	SealedKey struct{ Seed, Sealed, Key string } `json:"sealed_key"`
	Secretbox struct{ Key, Nonce, Ciphertext, Plain string }
	Vault     struct {
		SecretKey string `json:"secret_key"`
		Entry     VaultBox
		Value     string
	}
}

func readSealedVectors(t testing.TB) (v sealedVectors) {
	t.Helper()
	readVectors(t, "sealed-vectors.json", &v)
	return v
}

func TestSealedThingsAgreeWithLibsodium(t *testing.T) {
	v := readSealedVectors(t)
	t.Run("a key sealed by libsodium opens", func(t *testing.T) {
		me, err := NewIdentity(bytes.NewReader(unhex(t, v.SealedKey.Seed)))
		if err != nil {
			t.Fatal(err)
		}
		key, err := OpenKey(me, v.SealedKey.Sealed)
		if err != nil || hex.EncodeToString(key.bytes[:]) != v.SealedKey.Key {
			t.Errorf("%v", err)
		}
	})
	t.Run("a file is a nonce followed by libsodium's secretbox", func(t *testing.T) {
		nonce, err := base64.StdEncoding.DecodeString(v.Secretbox.Nonce)
		if err != nil {
			t.Fatal(err)
		}
		box, err := base64.StdEncoding.DecodeString(v.Secretbox.Ciphertext)
		if err != nil {
			t.Fatal(err)
		}
		body := append(nonce, box...)
		key := unhex(t, v.Secretbox.Key)
		plain, err := OpenFile(body, ContentKey{(*[contentKeySize]byte)(key)})
		if err != nil || string(plain) != v.Secretbox.Plain {
			t.Errorf("%q %v", plain, err)
		}
		again, _, err := SealFile([]byte(v.Secretbox.Plain), bytes.NewReader(append(key, nonce...)))
		if err != nil || !bytes.Equal(again, body) {
			t.Errorf("%x %v", again, err)
		}
	})
	t.Run("a vault entry of a reference client opens", func(t *testing.T) {
		me, err := IdentityFromSecret(v.Vault.SecretKey)
		if err != nil {
			t.Fatal(err)
		}
		value, readable, err := OpenVault(me, v.Vault.Entry)
		if err != nil || readable || string(value) != v.Vault.Value {
			t.Errorf("%q %v %v", value, readable, err)
		}
	})
	var all struct{ Vectors []cryptoVector }
	readVectors(t, "crypto-vectors.json", &all)
	for _, c := range all.Vectors {
		t.Run("what was sealed for "+c.EdPK[:8]+" opens only when it is a key", func(t *testing.T) {
			me, err := NewIdentity(bytes.NewReader(unhex(t, c.Seed)))
			if err != nil {
				t.Fatal(err)
			}
			raw := unhex(t, c.SealToK)
			_, err = OpenKey(me, base64.StdEncoding.EncodeToString(raw))
			if isKey := len(raw) == SealedKeySize; isKey != (err == nil) {
				t.Errorf("%d bytes: %v", len(raw), err)
			}
		})
	}
}

func TestSealedThings(t *testing.T) {
	me, other := fixedIdentity(t, 1), fixedIdentity(t, 2)
	body, key, err := SealFile([]byte("the plans"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := key.SealFor(other.PublicKey(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the recipient opens a file, nobody else", func(t *testing.T) {
		got, err := OpenKey(other, sealed)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := OpenFile(body, got); err != nil || string(plain) != "the plans" {
			t.Errorf("%q %v", plain, err)
		}
		if _, err := OpenKey(me, sealed); !errors.Is(err, ErrUndecryptable) {
			t.Errorf("somebody else: %v", err)
		}
	})
	t.Run("a changed byte anywhere is noticed", func(t *testing.T) {
		for i := range body {
			bad := bytes.Clone(body)
			bad[i] ^= 1
			if _, err := OpenFile(bad, key); !errors.Is(err, ErrUndecryptable) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
		if _, err := OpenFile(body[:len(body)-1], key); !errors.Is(err, ErrUndecryptable) {
			t.Errorf("cut: %v", err)
		}
		if _, err := OpenFile(nil, key); !errors.Is(err, ErrUndecryptable) {
			t.Errorf("empty: %v", err)
		}
	})
	t.Run("a weak key gets nothing", func(t *testing.T) {
		for _, to := range []string{"", "zz", strings.Repeat("0", 64), "01" + strings.Repeat("0", 62)} {
			if _, err := key.SealFor(to, rand.Reader); !errors.Is(err, ErrWeakKey) {
				t.Errorf("%q: %v", to, err)
			}
		}
	})
	t.Run("a key does not show itself", func(t *testing.T) {
		secret := hex.EncodeToString(key.bytes[:])
		shown := fmt.Sprintf("%v %+v %#v %s %x %d", key, key, key, key, key, struct{ K ContentKey }{key})
		if strings.Contains(shown, secret[:8]) || strings.Contains(shown, fmt.Sprint(key.bytes[0], key.bytes[1])) {
			t.Error(shown)
		}
		if _, err := json.Marshal(key); err == nil {
			t.Error("written as JSON")
		}
	})
	t.Run("what is over the limit is refused", func(t *testing.T) {
		if _, _, err := SealFile(make([]byte, MaxFile+1), rand.Reader); !errors.Is(err, ErrSealTooLarge) {
			t.Error(err)
		}
		if _, err := SealVault(me, make([]byte, MaxVaultValue+1), rand.Reader); !errors.Is(err, ErrSealTooLarge) {
			t.Error(err)
		}
	})
	t.Run("a vault entry comes back for its member only, and every time under another key", func(t *testing.T) {
		one, err := SealVault(me, []byte("hunter2"), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		two, err := SealVault(me, []byte("hunter2"), rand.Reader)
		if err != nil || one.Ciphertext == two.Ciphertext {
			t.Fatal("the same ciphertext twice", err)
		}
		if value, readable, err := OpenVault(me, one); err != nil || readable || string(value) != "hunter2" {
			t.Errorf("%q %v %v", value, readable, err)
		}
		if _, _, err := OpenVault(other, one); !errors.Is(err, ErrUndecryptable) {
			t.Error(err)
		}
		one.Ciphertext = two.Ciphertext
		if _, _, err := OpenVault(me, one); !errors.Is(err, ErrUndecryptable) {
			t.Error(err)
		}
	})
	t.Run("an entry that was never encrypted says so", func(t *testing.T) {
		value, readable, err := OpenVault(me, VaultBox{Ciphertext: "b2xk", Nonce: "placeholder-nonce"})
		if err != nil || !readable || string(value) != "old" {
			t.Errorf("%q %v %v", value, readable, err)
		}
	})
	if SealedKeySize != 80 || box.AnonymousOverhead != 48 {
		t.Error("the size of a sealed key is fixed by the protocol")
	}
}

func FuzzOpenSealed(f *testing.F) {
	v := readSealedVectors(f)
	me, err := IdentityFromSecret(v.Vault.SecretKey)
	if err != nil {
		f.Fatal(err)
	}
	body, key, err := SealFile([]byte("x"), bytes.NewReader(make([]byte, 64)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v.Vault.Entry.Ciphertext, v.Vault.Entry.Nonce, v.Vault.Entry.SealedKey, body)
	f.Add("b2xk", "placeholder-nonce", "", []byte{})
	f.Add("====", "AAAA", v.SealedKey.Sealed, make([]byte, FileOverhead))
	f.Fuzz(func(t *testing.T, ciphertext, nonce, sealed string, file []byte) {
		value, readable, err := OpenVault(me, VaultBox{ciphertext, nonce, sealed})
		if err == nil && !readable && string(value) != v.Vault.Value {
			t.Errorf("a forged entry opened: %q", value)
		}
		if plain, err := OpenFile(file, key); err == nil && len(plain) != len(file)-FileOverhead {
			t.Errorf("%d bytes of %d", len(plain), len(file))
		}
		if k, err := OpenKey(me, sealed); err == nil && k.bytes == nil {
			t.Error("no key and no error")
		}
	})
}
