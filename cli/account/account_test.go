package account

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func identity(t testing.TB) mesh.Identity {
	t.Helper()
	id, err := mesh.NewIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func membership(t testing.TB, slug, meshID string) mesh.Joined {
	id := identity(t)
	return mesh.Joined{MeshID: meshID, MemberID: "m1", Slug: slug, Name: slug, Pubkey: id.PublicKey(), SecretKey: id.SecretHex(), BrokerURL: "wss://mesh.example.org/ws"}
}

func TestAPackageIsForOneMachineByOne(t *testing.T) {
	old, fresh, stranger := identity(t), identity(t), identity(t)
	content := Content{Account: "acc", Name: "laptop", Meshes: []mesh.Joined{membership(t, "team", "id1")}, Trusted: []TrustedPeer{{Pubkey: stranger.PublicKey(), Name: "desk"}}}
	box, err := Seal(old, fresh.PublicKey(), content, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	box.From = old.PublicKey() // the broker's word
	got, err := Open(fresh, "acc", box)
	if err != nil || len(got.Meshes) != 1 || got.Meshes[0].SecretKey != content.Meshes[0].SecretKey || got.Name != "laptop" || len(got.Trusted) != 1 {
		t.Fatalf("%v %v", got.Name, err)
	}
	if strings.Contains(box.Box, content.Meshes[0].SecretKey) {
		t.Error("the key travels in clear")
	}
	for name, edit := range map[string]func(*wire.SealedBox) (mesh.Identity, string){
		"by another machine than it says": func(b *wire.SealedBox) (mesh.Identity, string) { b.From = stranger.PublicKey(); return fresh, "acc" },
		"opened by another machine":       func(b *wire.SealedBox) (mesh.Identity, string) { b.To = stranger.PublicKey(); return stranger, "acc" },
		"for another key":                 func(b *wire.SealedBox) (mesh.Identity, string) { return stranger, "acc" },
		"of another account":              func(b *wire.SealedBox) (mesh.Identity, string) { return fresh, "other" },
		"changed":                         func(b *wire.SealedBox) (mesh.Identity, string) { b.Box = "A" + b.Box[1:]; return fresh, "acc" },
		"no base64":                       func(b *wire.SealedBox) (mesh.Identity, string) { b.Box = "*"; return fresh, "acc" },
		"empty":                           func(b *wire.SealedBox) (mesh.Identity, string) { b.Box = ""; return fresh, "acc" },
	} {
		t.Run(name, func(t *testing.T) {
			b := box
			who, account := edit(&b)
			if b == box && who == fresh && account == "acc" {
				b.Box = "B" + b.Box[1:] // the letter was the same by chance
			}
			if _, err := Open(who, account, b); !errors.Is(err, ErrBox) {
				t.Error(err)
			}
		})
	}
	t.Run("a membership in it that is none", func(t *testing.T) {
		for _, edit := range []func(*mesh.Joined){
			func(j *mesh.Joined) { j.SecretKey = strings.Repeat("0", 128) }, func(j *mesh.Joined) { j.Slug = "../x" },
			func(j *mesh.Joined) { j.BrokerURL = "file:///etc/passwd" }, func(j *mesh.Joined) { j.MeshID = "" },
		} {
			bad := membership(t, "team", "id1")
			edit(&bad)
			b, err := Seal(old, fresh.PublicKey(), Content{Account: "acc", Meshes: []mesh.Joined{bad}}, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			b.From = old.PublicKey()
			if _, err := Open(fresh, "acc", b); !errors.Is(err, ErrBox) {
				t.Errorf("%v: %v", bad, err)
			}
		}
	})
}

// A broker that puts its own key in the place of a machine's does not know the code's secret half, in either direction.
func TestABrokerInBetweenIsFoundOut(t *testing.T) {
	secret, err := mesh.NewDeviceSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	guess, err := mesh.NewDeviceSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	device, approver, broker := identity(t).PublicKey(), identity(t).PublicKey(), identity(t).PublicKey()
	asks, admits := secret.Vouch(mesh.DeviceAsks, device), secret.Vouch(mesh.DeviceAdmits, approver, device)
	for name, ok := range map[string]bool{
		"the broker's key with the machine's tag":  secret.Vouched(asks, mesh.DeviceAsks, broker),
		"the broker's key with a guessed tag":      secret.Vouched(guess.Vouch(mesh.DeviceAsks, broker), mesh.DeviceAsks, broker),
		"the machine's tag as an admission":        secret.Vouched(asks, mesh.DeviceAdmits, device),
		"another approver with the real one's tag": secret.Vouched(admits, mesh.DeviceAdmits, broker, device),
		"half a code": mesh.DeviceSecret{}.Vouched(mesh.DeviceSecret{}.Vouch(mesh.DeviceAsks, device), mesh.DeviceAsks, device),
	} {
		if ok {
			t.Error(name, "is believed")
		}
	}
	if !secret.Vouched(asks, mesh.DeviceAsks, device) || !secret.Vouched(admits, mesh.DeviceAdmits, approver, device) {
		t.Error("the real ones are not")
	}
}

func TestTheFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	if _, err := LoadAuth(dir); !errors.Is(err, ErrSignedOut) {
		t.Fatal(err)
	}
	key := identity(t)
	a := &Auth{SessionToken: "cms_secret", User: wire.User{ID: "u", DisplayName: "ada"}, TokenSource: SourceDevice, BrokerURL: "ws://h/ws", DeviceKey: key.SecretHex()}
	if !a.Trust(TrustedPeer{"k", "laptop"}) || a.Trust(TrustedPeer{"k", "desk"}) || a.Trusted[0].Name != "desk" {
		t.Error("trust")
	}
	if err := a.Save(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(AuthPath(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	got, err := LoadAuth(dir)
	if err != nil || got.SessionToken != "cms_secret" || !got.Trusts("k") {
		t.Fatalf("%v %v", got, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, *got); strings.Contains(s, "cms_") || strings.Contains(s, key.SecretHex()) {
			t.Errorf("%s shows %s", verb, s)
		}
	}
	if dev, err := got.Device(); err != nil || dev.PublicKey() != key.PublicKey() {
		t.Error(err)
	}
	for _, text := range []string{"", "{", "[]", `{"session_token":""}`, `{"session_token":7}`} {
		if err := os.WriteFile(AuthPath(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadAuth(dir); !errors.Is(err, ErrAuthCorrupt) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := errors.Join(Forget(dir), Forget(dir)); err != nil {
		t.Error(err)
	}
}

func TestMergeAddsAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	mine := membership(t, "team", "id1")
	if added, err := Merge(dir, []mesh.Joined{mine}); err != nil || fmt.Sprint(added) != "[team]" {
		t.Fatal(added, err)
	}
	same, other := membership(t, "renamed", "id1"), membership(t, "team", "id2")
	added, err := Merge(dir, []mesh.Joined{same, other, other})
	if err != nil || fmt.Sprint(added) != "[team-2]" {
		t.Fatal(added, err)
	}
	config, err := mesh.LoadConfig(dir)
	if err != nil || len(config.Meshes) != 2 || config.Meshes[0].Pubkey != mine.Pubkey || config.Meshes[1].Pubkey != other.Pubkey {
		t.Error(config, err)
	}
}

func FuzzOpen(f *testing.F) {
	old, fresh := identity(f), identity(f)
	f.Add([]byte(`{"v":1,"account":"acc","meshes":[]}`))
	f.Add([]byte(`{"v":1,"account":"acc","meshes":[{"slug":"x"}],"trusted":[{"pubkey":"x"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		nonce, sealed, err := mesh.Seal(old, fresh.PublicKey(), text, rand.Reader)
		if err != nil {
			t.Skip()
		}
		box := wire.SealedBox{From: old.PublicKey(), To: fresh.PublicKey(), Nonce: base64.StdEncoding.EncodeToString(nonce), Box: base64.StdEncoding.EncodeToString(sealed)}
		c, err := Open(fresh, "acc", box)
		if err != nil {
			return
		}
		for _, j := range c.Meshes {
			if _, err := j.Identity(); err != nil {
				t.Errorf("a membership without its key: %v", j)
			}
		}
	})
}
