package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"claudemesh/wire"
)

// The vault keeps what a member sealed for itself: vault.MESH.MEMBERKEY.NAME. A row is read, listed and deleted by its own member only, whatever the role of
// another; the broker cannot open any.

const familyVault = "vault"

// vaultRecord is one entry, as it was sent.
type vaultRecord struct {
	Key         string  `json:"key"`
	Ciphertext  string  `json:"ciphertext"`
	Nonce       string  `json:"nonce"`
	SealedKey   string  `json:"sealed_key"`
	EntryType   string  `json:"entry_type"`
	MountPath   *string `json:"mount_path,omitempty"`
	Description *string `json:"description,omitempty"`
	UpdatedAt   int64   `json:"updated_at"`
}

func (c *conn) vaultKey(name string) string {
	return recordKey(familyVault, c.mesh.rec.ID, c.member.Pubkey, recordName(name))
}

func (c *conn) vaultSet(data []byte, reqID string) {
	var f wire.VaultSet
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	key := c.vaultKey(f.Key)
	_, err := getRecord[vaultRecord](ctx, c.b.store, key)
	if errors.Is(err, errNoRecord) {
		var full bool
		if full, err = c.vaultFull(ctx); err == nil && full {
			c.fail(reqID, wire.CodeVault, fmt.Sprintf("the vault holds %d entries already, delete some first", c.b.lim.VaultEntries))
			return
		}
	}
	if err == nil {
		err = c.b.store.putRecord(ctx, key, vaultRecord{
			Key: f.Key, Ciphertext: f.Ciphertext, Nonce: f.Nonce, SealedKey: f.SealedKey, EntryType: f.EntryType, MountPath: f.MountPath, Description: f.Description,
			UpdatedAt: c.b.now().UnixMilli(),
		})
	}
	if err != nil {
		c.vaultFailed(reqID, wire.TypeVaultSet, err)
		return
	}
	c.reply(wire.VaultAck{Type: wire.TypeVaultAck, Key: f.Key, Action: wire.VaultStored, ReqID: reqID})
}

// vaultFull counts; two connections of a member that set at one time may exceed the limit by one each.
func (c *conn) vaultFull(ctx context.Context) (bool, error) {
	all, err := c.b.store.recordKeys(ctx, familyVault, c.mesh.rec.ID, c.member.Pubkey)
	return len(all) >= c.b.lim.VaultEntries, err
}

func (c *conn) vaultGet(data []byte, reqID string) {
	var f wire.VaultGet
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	entries := []wire.VaultEntry{}
	for _, key := range f.Keys {
		r, err := getRecord[vaultRecord](ctx, c.b.store, c.vaultKey(key))
		if errors.Is(err, errNoRecord) {
			continue
		}
		if err != nil {
			c.vaultFailed(reqID, wire.TypeVaultGet, err)
			return
		}
		v := r.Value
		entries = append(entries, wire.VaultEntry{Key: v.Key, Ciphertext: v.Ciphertext, Nonce: v.Nonce, SealedKey: v.SealedKey, EntryType: v.EntryType, MountPath: v.MountPath})
	}
	c.replyOr(reqID, wire.CodeVault, "the entries are too large for one answer, ask for fewer keys",
		wire.VaultGetResult{Type: wire.TypeVaultGetResult, Entries: entries, ReqID: reqID})
}

func (c *conn) vaultList(_ []byte, reqID string) {
	ctx, cancel := c.b.deadline()
	defer cancel()
	all, err := listRecords[vaultRecord](ctx, c.b.store, familyVault, c.mesh.rec.ID, c.member.Pubkey)
	if err != nil {
		c.vaultFailed(reqID, wire.TypeVaultList, err)
		return
	}
	slices.SortFunc(all, func(a, b record[vaultRecord]) int { return strings.Compare(a.Value.Key, b.Value.Key) })
	entries := []wire.VaultSummary{}
	for _, r := range all {
		entries = append(entries, wire.VaultSummary{
			Key: r.Value.Key, EntryType: r.Value.EntryType, MountPath: r.Value.MountPath, Description: r.Value.Description, UpdatedAt: wire.Timestamp(unixMilli(r.Value.UpdatedAt)),
		})
	}
	c.replyOr(reqID, wire.CodeVault, "the list is too long for one answer, delete some entries",
		wire.VaultListResult{Type: wire.TypeVaultListResult, Entries: entries, ReqID: reqID})
}

func (c *conn) vaultDelete(data []byte, reqID string) {
	var f wire.VaultKey
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	key, action := c.vaultKey(f.Key), wire.VaultDeleted
	_, err := getRecord[vaultRecord](ctx, c.b.store, key)
	if errors.Is(err, errNoRecord) {
		action, err = wire.VaultNotFound, nil
	} else if err == nil {
		err = c.b.store.deleteRecord(ctx, key)
	}
	if err != nil {
		c.vaultFailed(reqID, wire.TypeVaultDelete, err)
		return
	}
	c.reply(wire.VaultAck{Type: wire.TypeVaultAck, Key: f.Key, Action: action, ReqID: reqID})
}

// vaultFailed is storeFailed under the code that clients of the vault look for.
func (c *conn) vaultFailed(reqID, op string, err error) {
	c.log.Error("request not served", "op", op, "err", err)
	c.fail(reqID, wire.CodeVault, "the store does not answer; nothing was changed that was not confirmed")
}

// replyOr answers with v, or with an error when v is over the size of a frame.
func (c *conn) replyOr(reqID, code, message string, v any) {
	data, err := wire.Encode(v)
	if err != nil {
		c.fail(reqID, code, message)
		return
	}
	c.push(frame{data: data})
}
