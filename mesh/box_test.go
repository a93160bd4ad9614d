package mesh

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/edwards25519"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"
	"pgregory.net/rapid"
)

type cryptoVector struct {
	Seed, Msg, Nonce, Sig string
	EdPK                  string `json:"ed_pk"`
	EdSK                  string `json:"ed_sk"`
	XPK                   string `json:"x_pk"`
	XSK                   string `json:"x_sk"`
	PeerSeed              string `json:"peer_seed"`
	PeerEdPK              string `json:"peer_ed_pk"`
	PeerXPK               string `json:"peer_x_pk"`
	PeerXSK               string `json:"peer_x_sk"`
	Beforenm              string `json:"box_beforenm"`
	Easy                  string `json:"box_easy_k_to_peer"`
	SecretboxKey          string `json:"secretbox_key"`
	SecretboxEasy         string `json:"secretbox_easy"`
	SealToK               string `json:"seal_to_k"`
	GoSealToK             string `json:"go_seal_to_k"`
	GenericHash32         string `json:"generichash32"`
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The vectors come from libsodium 1.0.22.
func TestAgreesWithLibsodium(t *testing.T) {
	var file struct{ Vectors []cryptoVector }
	readVectors(t, "crypto-vectors.json", &file)
	if len(file.Vectors) != 5 {
		t.Fatalf("%d vectors, want 5", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		t.Run("seed "+v.Seed[:8], func(t *testing.T) {
			me, err := NewIdentity(bytes.NewReader(unhex(t, v.Seed)))
			if err != nil {
				t.Fatal(err)
			}
			peer, err := NewIdentity(bytes.NewReader(unhex(t, v.PeerSeed)))
			if err != nil {
				t.Fatal(err)
			}
			equal := func(what, got, want string) {
				t.Helper()
				if got != want {
					t.Errorf("%s is %s, want %s", what, got, want)
				}
			}
			msg, nonce := unhex(t, v.Msg), unhex(t, v.Nonce)
			equal("public key", me.PublicKey(), v.EdPK)
			equal("secret key", me.SecretHex(), v.EdSK)
			equal("peer's public key", peer.PublicKey(), v.PeerEdPK)
			for name, c := range map[string]struct {
				id       Identity
				pub, sec string
			}{"own": {me, v.XPK, v.XSK}, "peer's": {peer, v.PeerXPK, v.PeerXSK}} {
				pub, err := x25519Public(c.id.PublicKey())
				if err != nil {
					t.Fatal(err)
				}
				equal(name+" x25519 public key", hex.EncodeToString(pub[:]), c.pub)
				equal(name+" x25519 secret key", hex.EncodeToString(c.id.x25519Secret()[:]), c.sec)
			}
			var shared [32]byte
			box.Precompute(&shared, (*[32]byte)(unhex(t, v.PeerXPK)), me.x25519Secret())
			equal("shared key", hex.EncodeToString(shared[:]), v.Beforenm)

			gotNonce, sealed, err := Seal(me, peer.PublicKey(), msg, bytes.NewReader(nonce))
			if err != nil {
				t.Fatal(err)
			}
			equal("nonce", hex.EncodeToString(gotNonce), v.Nonce)
			equal("box", hex.EncodeToString(sealed), v.Easy)
			opened, err := Open(peer, me.PublicKey(), nonce, unhex(t, v.Easy))
			if err != nil {
				t.Fatal(err)
			}
			equal("opened box", hex.EncodeToString(opened), v.Msg)
			equal("signature", me.Sign(msg), v.Sig)
			if !VerifySignature(v.EdPK, msg, v.Sig) {
				t.Error("signature refused")
			}
			// Formats other rooms use, on the same converted keys.
			key := (*[32]byte)(unhex(t, v.SecretboxKey))
			equal("secretbox", hex.EncodeToString(secretbox.Seal(nil, msg, (*[24]byte)(nonce), key)), v.SecretboxEasy)
			pub, _ := x25519Public(me.PublicKey())
			for _, sealedBox := range []string{v.SealToK, v.GoSealToK} {
				out, ok := box.OpenAnonymous(nil, unhex(t, sealedBox), pub, me.x25519Secret())
				if !ok || !bytes.Equal(out, msg) {
					t.Error("sealed box does not open")
				}
			}
			sum := blake2b.Sum256(msg)
			equal("generic hash", hex.EncodeToString(sum[:]), v.GenericHash32)
		})
	}
}

// wire-protocol 6.15: seeds 01 and 02, nonce 24 times 07.
func TestSealsTheReferenceMessage(t *testing.T) {
	a, b := fixedIdentity(t, 1), fixedIdentity(t, 2)
	nonce, sealed, err := Seal(a, b.PublicKey(), []byte("hola ✓"), bytes.NewReader(bytes.Repeat([]byte{7}, 24)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := base64.StdEncoding.EncodeToString(nonce), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH"; got != want {
		t.Errorf("nonce %s, want %s", got, want)
	}
	if got, want := base64.StdEncoding.EncodeToString(sealed), "P1+4jJTaWK+4/G32oR/4JKjhHIfbH+3/"; got != want {
		t.Errorf("box %s, want %s", got, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	a, b, c := fixedIdentity(t, 1), fixedIdentity(t, 2), fixedIdentity(t, 3)
	nonce, sealed, err := Seal(a, b.PublicKey(), []byte("secret"), bytes.NewReader(bytes.Repeat([]byte{7}, 24)))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(in []byte, at int) []byte { out := bytes.Clone(in); out[at] ^= 1; return out }
	for name, try := range map[string]struct {
		to            Identity
		from          string
		nonce, sealed []byte
		want          error
	}{
		"a box for somebody else":    {c, a.PublicKey(), nonce, sealed, ErrUndecryptable},
		"a box by somebody else":     {b, c.PublicKey(), nonce, sealed, ErrUndecryptable},
		"another nonce":              {b, a.PublicKey(), flip(nonce, 0), sealed, ErrUndecryptable},
		"a changed tag":              {b, a.PublicKey(), nonce, flip(sealed, 0), ErrUndecryptable},
		"a changed text":             {b, a.PublicKey(), nonce, flip(sealed, len(sealed)-1), ErrUndecryptable},
		"a short box":                {b, a.PublicKey(), nonce, sealed[:15], ErrUndecryptable},
		"no box":                     {b, a.PublicKey(), nonce, nil, ErrUndecryptable},
		"a short nonce":              {b, a.PublicKey(), nonce[:23], sealed, ErrUndecryptable},
		"a long nonce":               {b, a.PublicKey(), append(bytes.Clone(nonce), 0), sealed, ErrUndecryptable},
		"a weak sender":              {b, strings.Repeat("00", 32), nonce, sealed, ErrWeakKey},
		"a sender that is not a key": {b, "system", nonce, sealed, ErrWeakKey},
		"an upper-case sender":       {b, strings.ToUpper(a.PublicKey()), nonce, sealed, ErrWeakKey},
		"an opener without any key":  {Identity{}, a.PublicKey(), nonce, sealed, errNoIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			if text, err := Open(try.to, try.from, try.nonce, try.sealed); !errors.Is(err, try.want) || text != nil {
				t.Errorf("got %q, %v; want %v", text, err, try.want)
			}
		})
	}
}

func TestSealRefuses(t *testing.T) {
	a, b := fixedIdentity(t, 1), fixedIdentity(t, 2)
	if _, _, err := Seal(Identity{}, b.PublicKey(), nil, bytes.NewReader(make([]byte, 24))); !errors.Is(err, errNoIdentity) {
		t.Errorf("a sender without key: %v", err)
	}
	dry := errors.New("dry")
	if _, _, err := Seal(a, b.PublicKey(), nil, iotest.ErrReader(dry)); !errors.Is(err, dry) {
		t.Errorf("no randomness: %v", err)
	}
}

func TestWeakKeysAreRefusedEverywhere(t *testing.T) {
	a := fixedIdentity(t, 1)
	honest, err := new(edwards25519.Point).SetBytes(unhex(t, a.PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	order8, err := new(edwards25519.Point).SetBytes(unhex(t, "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"))
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{
		"identity":               "01" + strings.Repeat("00", 31),
		"zero":                   strings.Repeat("00", 32),
		"order 2":                "ec" + strings.Repeat("ff", 30) + "7f",
		"order 8":                hex.EncodeToString(order8.Bytes()),
		"not on the curve":       "02" + strings.Repeat("00", 31),
		"identity not canonical": "ee" + strings.Repeat("ff", 30) + "7f",
		"identity with sign bit": "01" + strings.Repeat("00", 30) + "80",
		"y = p, not canonical":   "ed" + strings.Repeat("ff", 30) + "7f",
		"y = p+3, not canonical": "f0" + strings.Repeat("ff", 30) + "7f",
		"all ones":               strings.Repeat("ff", 32),
		"upper case":             strings.ToUpper(a.PublicKey()),
		"empty":                  "",
		"a name":                 "system",
	}
	torsion := edwards25519.NewIdentityPoint()
	for i := 1; i < 8; i++ {
		torsion.Add(torsion, order8)
		mixed := new(edwards25519.Point).Add(honest, torsion)
		keys["mixed torsion "+string(rune('0'+i))] = hex.EncodeToString(mixed.Bytes())
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			if _, _, err := Seal(a, key, []byte("x"), bytes.NewReader(make([]byte, 24))); !errors.Is(err, ErrWeakKey) {
				t.Errorf("sealed: %v", err)
			}
			if _, err := Open(a, key, make([]byte, 24), make([]byte, 17)); !errors.Is(err, ErrWeakKey) {
				t.Errorf("opened: %v", err)
			}
			// R and S of zero verify for every message under a small-order key.
			for _, r := range []string{keys["identity"], key} {
				if len(r) == 64 && VerifySignature(key, []byte("x"), r+strings.Repeat("00", 32)) {
					t.Errorf("signature accepted with R = %s", r)
				}
			}
		})
	}
}

func TestSealedMessagesOpenAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32)
		from, err := NewIdentity(bytes.NewReader(seed.Draw(t, "from")))
		if err != nil {
			t.Fatal(err)
		}
		to, err := NewIdentity(bytes.NewReader(seed.Draw(t, "to")))
		if err != nil {
			t.Fatal(err)
		}
		text := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "text")
		nonce, sealed, err := Seal(from, to.PublicKey(), text, bytes.NewReader(rapid.SliceOfN(rapid.Byte(), 24, 24).Draw(t, "nonce")))
		if err != nil || len(sealed) != len(text)+box.Overhead {
			t.Fatalf("%d bytes, %v", len(sealed), err)
		}
		got, err := Open(to, from.PublicKey(), nonce, sealed)
		if err != nil || !bytes.Equal(got, text) {
			t.Fatalf("%x, %v", got, err)
		}
		back, err := IdentityFromSecret(from.SecretHex())
		if err != nil || back.PublicKey() != from.PublicKey() {
			t.Fatalf("secret does not read back: %v", err)
		}
	})
}

func TestMaxBodyIsTheLongestTextEveryTargetTakes(t *testing.T) {
	// The broker's rule, with real encodings rather than computed lengths.
	fits := func(text, targetSpec string, direct bool) bool {
		payload := []byte(text)
		nonce := make([]byte, NonceSize)
		if direct {
			var err error
			nonce, payload, err = Seal(fixedIdentity(t, 1), targetSpec, payload, bytes.NewReader(nonce))
			if err != nil {
				t.Fatal(err)
			}
		}
		units := len(base64.StdEncoding.EncodeToString(payload)) + len(base64.StdEncoding.EncodeToString(nonce)) + len(targetSpec)
		if units != SendUnits(len(payload), targetSpec) {
			t.Errorf("SendUnits says %d, it is %d", SendUnits(len(payload), targetSpec), units)
		}
		return units <= 65_536
	}
	key := fixedIdentity(t, 2).PublicKey()
	longest := "@" + strings.Repeat("g", MaxTarget-1)
	if target, err := ParseTarget(longest); err != nil || target.Kind != TargetGroup {
		t.Fatalf("the longest group is no legal target: %v", err)
	}
	text := strings.Repeat("x", MaxBody)
	for spec, direct := range map[string]bool{key: true, longest: false, "*": false, "@all": false, "#t": false} {
		if !fits(text, spec, direct) {
			t.Errorf("%d bytes do not fit for %.20s", MaxBody, spec)
		}
	}
	if fits(text+"x", longest, false) {
		t.Errorf("%d bytes would fit for every target", MaxBody+1)
	}
}

func TestBoxesAgreeWithSealAndOpenAndRememberNoRefusedKey(t *testing.T) {
	a, errA := NewIdentity(rand.Reader)
	b, errB := NewIdentity(rand.Reader)
	c, errC := NewIdentity(rand.Reader)
	if err := errors.Join(errA, errB, errC); err != nil {
		t.Fatal(err)
	}
	boxes := NewBoxes(2)
	for i := range 3 { // the second round finds the keys, the third finds them pushed out
		if i == 2 {
			for _, peer := range []string{c.PublicKey(), a.PublicKey()} {
				if _, _, err := boxes.Seal(b, peer, nil, rand.Reader); err != nil {
					t.Fatal(err)
				}
			}
		}
		nonce, sealed, err := boxes.Seal(a, b.PublicKey(), []byte("hi"), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := Open(b, a.PublicKey(), nonce, sealed); err != nil || string(text) != "hi" {
			t.Errorf("round %d: opened %q, %v", i, text, err)
		}
		if text, err := boxes.Open(b, a.PublicKey(), nonce, sealed); err != nil || string(text) != "hi" {
			t.Errorf("round %d: boxes opened %q, %v", i, text, err)
		}
		if _, err := boxes.Open(c, a.PublicKey(), nonce, sealed); !errors.Is(err, ErrUndecryptable) {
			t.Errorf("round %d: opened for another identity: %v", i, err)
		}
		if _, _, err := boxes.Seal(a, strings.Repeat("0", 64), nil, rand.Reader); !errors.Is(err, ErrWeakKey) {
			t.Errorf("round %d: sealed for a weak key: %v", i, err)
		}
	}
}
