package mesh

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
)

func TestIdentityReadsBackItsSecret(t *testing.T) {
	a := fixedIdentity(t, 1)
	if got, want := a.PublicKey(), "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"; got != want {
		t.Errorf("public key %s, want %s", got, want)
	}
	for name, secret := range map[string]string{"lower case": a.SecretHex(), "upper case": strings.ToUpper(a.SecretHex())} {
		t.Run(name+" is read", func(t *testing.T) {
			b, err := IdentityFromSecret(secret)
			if err != nil {
				t.Fatal(err)
			}
			if b.SecretHex() != a.SecretHex() || b.PublicKey() != a.PublicKey() || len(b.SecretHex()) != 128 {
				t.Error("another identity came back")
			}
		})
	}
}

func TestIdentityFromSecretRefuses(t *testing.T) {
	a, b := fixedIdentity(t, 1), fixedIdentity(t, 2)
	for name, secret := range map[string]string{
		"nothing":                       "",
		"a seed alone":                  a.SecretHex()[:64],
		"a digit too few":               a.SecretHex()[:127],
		"a digit too many":              a.SecretHex() + "0",
		"letters that are not hex":      strings.Repeat("zz", 64),
		"the public half of another":    a.SecretHex()[:64] + b.PublicKey(),
		"one flipped bit in the public": a.SecretHex()[:127] + "d",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := IdentityFromSecret(secret)
			if !errors.Is(err, ErrBadSecret) || err.Error() != ErrBadSecret.Error() {
				t.Errorf("error is %v, want exactly %v", err, ErrBadSecret)
			}
		})
	}
}

func TestNewIdentityReportsMissingRandomness(t *testing.T) {
	if id, err := NewIdentity(iotest.ErrReader(errors.New("dry"))); err == nil || !id.IsZero() {
		t.Errorf("got %v, %v", id, err)
	}
	if _, err := NewIdentity(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("31 bytes were enough")
	}
}

func TestZeroIdentityDoesNothing(t *testing.T) {
	var zero Identity
	if !zero.IsZero() || zero.PublicKey() != "" || zero.SecretHex() != "" || zero.Sign([]byte("x")) != "" {
		t.Error("zero identity acts like a key")
	}
}

// Every way a value may reach a terminal, a log or a reply.
func TestSecretsStayInside(t *testing.T) {
	id := fixedIdentity(t, 0xA7)
	secret := id.SecretHex()
	joined := Joined{Slug: "acme", Pubkey: id.PublicKey(), SecretKey: secret, RootKey: secret}
	inv := Invite{MeshSlug: "acme", MeshRootKey: secret, Signature: secret}
	type holder struct {
		Public  any
		private Identity
		pointer *Identity
	}
	values := map[string]any{
		"identity":            id,
		"pointer to identity": &id,
		"struct of it":        holder{Public: id, private: id, pointer: &id},
		"slice of it":         []Identity{id},
		"map of it":           map[string]Identity{"k": id},
		"joined mesh":         joined,
		"pointer to joined":   &joined,
		"slice of joined":     []Joined{joined},
		"config":              &Config{Meshes: []Joined{joined}},
		"config by value":     Config{Meshes: []Joined{joined}},
		"invite":              inv,
	}
	// As text, and as the decimal numbers that a byte array prints as.
	seed, _ := hex.DecodeString(secret[:64])
	leaks := []string{secret[:32], strings.ToUpper(secret[:32]), strings.Trim(fmt.Sprint(seed), "[]")}
	for name, v := range values {
		t.Run(name+" can be printed", func(t *testing.T) {
			var out strings.Builder
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%T"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
			for _, leak := range leaks {
				if strings.Contains(out.String(), leak) {
					t.Errorf("%q leaks in:\n%s", leak, out.String())
				}
			}
		})
	}
	t.Run("identity can be marshalled", func(t *testing.T) {
		text, err := json.Marshal(holder{Public: id})
		if err != nil || strings.Contains(string(text), secret[:32]) {
			t.Errorf("%s, %v", text, err)
		}
	})
	t.Run("identity, joined mesh and invite can be logged as JSON", func(t *testing.T) {
		var out strings.Builder
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "id", id, "joined", joined, "config", &Config{Meshes: []Joined{joined}}, "invite", inv)
		if strings.Contains(out.String(), secret[:32]) {
			t.Error(out.String())
		}
	})
}

func TestValidKey(t *testing.T) {
	key := fixedIdentity(t, 1).PublicKey()
	for s, want := range map[string]bool{
		key: true, strings.ToUpper(key): false, key[:63]: false, key + "0": false, "": false,
		key[:63] + "g": false, key[:62] + "é": false,
	} {
		if ValidKey(s) != want {
			t.Errorf("ValidKey(%q) is %t", s, !want)
		}
	}
}
