package mesh

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// The vectors are libsodium's, from the reference's tests: seeds of 32 equal bytes.
func TestClaims(t *testing.T) {
	a, b, owner := fixedIdentity(t, 1), fixedIdentity(t, 2), fixedIdentity(t, 3)
	t.Run("the owner's signature is that of the reference", func(t *testing.T) {
		const want = "72b78818ce3d5e76999510f1e2486e11c521069a528f1938b0fd2c68df8211528e0948137534f50c1fcfa457739c307fd7aa48889cefba5150c16e94951a470b"
		text := InviteV2String("mesh0001", "invite01", 1778000000, "member", owner.PublicKey())
		if got := owner.Sign(text); got != want {
			t.Errorf("%s signed as %s", text, got)
		}
	})
	t.Run("a root key sealed by libsodium opens", func(t *testing.T) {
		std, err := base64.StdEncoding.DecodeString("ZhbqT05xP7bwCpLzcU3MGUrSTFDZQ3LpB0I7xUFHOnnqK4KCwumLg1O4mPOp5t0LT7m3qlpKQyJShrUTofC6vdO+fC95YiROtFohHYn3g0o=")
		if err != nil {
			t.Fatal(err)
		}
		sealed := base64.RawURLEncoding.EncodeToString(std)
		if root, err := OpenRootKey(b, sealed); err != nil || !bytes.Equal(root, bytes.Repeat([]byte{5}, 32)) {
			t.Errorf("%x %v", root, err)
		}
		if _, err := OpenRootKey(a, sealed); !errors.Is(err, ErrClaim) {
			t.Errorf("opened by another key: %v", err)
		}
	})
	t.Run("what is sealed here opens for its recipient", func(t *testing.T) {
		key, err := ClaimKey(a.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		root := bytes.Repeat([]byte{9}, RootKeySize)
		sealed, err := SealRootKey(key, root, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := OpenRootKey(a, sealed); err != nil || !bytes.Equal(got, root) {
			t.Errorf("%x %v", got, err)
		}
	})
	for name, key := range map[string]string{
		"an empty key": "", "a short one": "AAAA", "all zeroes": base64.RawURLEncoding.EncodeToString(make([]byte, 32)), "no base64": strings.Repeat("!", 43),
		"order two": base64.RawURLEncoding.EncodeToString(append([]byte{1}, make([]byte, 31)...)),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			if _, err := SealRootKey(key, make([]byte, 32), rand.Reader); !errors.Is(err, ErrWeakKey) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestInviteCodesAreRandomAndReadable(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		code, err := NewInviteCode(rand.Reader)
		if err != nil || len(code) != CodeLength || strings.Trim(code, codeAlphabet) != "" || seen[code] {
			t.Fatalf("%q %v", code, err)
		}
		seen[code] = true
		if base, got, ok := InviteCode(code); !ok || base != "" || got != code {
			t.Fatalf("%q is not recognised", code)
		}
	}
}

func TestCheckClaim(t *testing.T) {
	owner, other := fixedIdentity(t, 3), fixedIdentity(t, 1)
	text := string(InviteV2String("m", "i", 9, "member", owner.PublicKey()))
	for _, tc := range []struct {
		name, canonical, sig, mesh, role, owner string
		ok                                      bool
	}{
		{"the owner's", text, owner.Sign([]byte(text)), "m", "member", owner.PublicKey(), true},
		{"another mesh's", text, owner.Sign([]byte(text)), "n", "member", owner.PublicKey(), false},
		{"another role's", text, owner.Sign([]byte(text)), "m", "admin", owner.PublicKey(), false},
		{"another owner's", text, owner.Sign([]byte(text)), "m", "member", other.PublicKey(), false},
		{"one that somebody else signed", text, other.Sign([]byte(text)), "m", "member", owner.PublicKey(), false},
		{"no canonical form", "v=2|m", owner.Sign([]byte("v=2|m")), "m", "member", owner.PublicKey(), false},
	} {
		if err := CheckClaim(tc.canonical, tc.sig, tc.mesh, tc.role, tc.owner); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
