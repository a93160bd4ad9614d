package broker

import (
	"fmt"
	"strings"
	"testing"

	"claudemesh/wire"
)

func vaultEntry(key string) map[string]any {
	return map[string]any{"key": key, "ciphertext": "c-" + key, "nonce": "n", "sealed_key": "s", "entry_type": "env"}
}

func TestVault(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.VaultEntries = 3 })
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	set := func(c *client, key string) wire.VaultAck {
		t.Helper()
		return into[wire.VaultAck](c, c.call(wire.TypeVaultSet, vaultEntry(key)))
	}
	keys := func(c *client) (out []string) {
		t.Helper()
		for _, e := range into[wire.VaultListResult](c, c.call(wire.TypeVaultList, nil)).Entries {
			out = append(out, e.Key)
		}
		return out
	}
	set(b, "z.y *>")
	set(b, "ä")
	set(b, "a")

	t.Run("a member sees its own entries, in order, and nobody else's, whatever its role", func(t *testing.T) {
		if got := fmt.Sprint(keys(b), keys(a)); got != "[a z.y *> ä] []" {
			t.Error(got)
		}
		if got := into[wire.VaultGetResult](a, a.call(wire.TypeVaultGet, map[string]any{"keys": []string{"a"}})); len(got.Entries) != 0 {
			t.Error(got)
		}
		if got := into[wire.VaultAck](a, a.call(wire.TypeVaultDelete, map[string]any{"key": "a"})); got.Action != wire.VaultNotFound {
			t.Error(got)
		}
	})
	t.Run("an entry over the limit is refused, a new value for an old key is not", func(t *testing.T) {
		if e := into[wire.Error](b, b.call(wire.TypeVaultSet, vaultEntry("fourth"))); e.Code != wire.CodeVault || !strings.Contains(e.Message, "3 entries") {
			t.Error(e)
		}
		if ack := set(b, "a"); ack.Action != wire.VaultStored {
			t.Error(ack)
		}
	})
	t.Run("what is malformed is refused with an answer", func(t *testing.T) {
		for _, bad := range []map[string]any{{}, {"key": "x"}, {"key": 7}, {"key": "x", "ciphertext": "c", "nonce": "n", "sealed_key": "s", "entry_type": "x"}} {
			if e := into[wire.Error](b, b.call(wire.TypeVaultSet, bad)); e.Code != wire.CodeInvalid {
				t.Error(bad, e)
			}
		}
	})
	t.Run("entries too large for one answer are asked for one by one", func(t *testing.T) {
		big := vaultEntry("a")
		big["ciphertext"] = strings.Repeat("x", wire.MaxVaultBoxBytes)
		if ack := into[wire.VaultAck](b, b.call(wire.TypeVaultSet, big)); ack.Action != wire.VaultStored {
			t.Fatal(ack)
		}
		many := map[string]any{"keys": []string{"a", "a", "a", "a", "a"}}
		if e := into[wire.Error](b, b.call(wire.TypeVaultGet, many)); e.Code != wire.CodeVault {
			t.Error(e)
		}
		if got := into[wire.VaultGetResult](b, b.call(wire.TypeVaultGet, map[string]any{"keys": []string{"a"}})); len(got.Entries) != 1 {
			t.Error(len(got.Entries))
		}
	})
	t.Run("a restart changes nothing", func(t *testing.T) {
		a.close()
		b.close()
		r.restart()
		again := r.member(bob)
		if got := fmt.Sprint(keys(again)); got != "[a z.y *> ä]" {
			t.Error(got)
		}
		again.call(wire.TypeVaultDelete, map[string]any{"key": "z.y *>"})
		if got := fmt.Sprint(keys(again)); got != "[a ä]" {
			t.Error(got)
		}
	})
}
