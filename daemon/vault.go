package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// The vault: values are sealed and opened here, because here is the member's key. Nothing of a value is logged or becomes part of an error.

// maxVaultRequest bounds vault-set: a value in base64, and its texts.
const maxVaultRequest = mesh.MaxVaultValue*4/3 + 16<<10

func (d *Daemon) vaultSet(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.VaultSet
	if err := c.Decode(&req); err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_request", Detail: "the request is not the JSON that this operation takes"} // the decoder's own words may quote the value
	}
	m, err := d.permit(ctx, c.Actor, mesh.CapVault, req.Mesh)
	if err != nil {
		return nil, err
	}
	box, err := mesh.SealVault(m.member, req.Value, d.opt.Rand)
	if errors.Is(err, mesh.ErrSealTooLarge) {
		return nil, &bus.APIError{
			Code: 413, Reason: "value_too_large", Detail: fmt.Sprintf("the value has %d bytes, the limit is %d", len(req.Value), mesh.MaxVaultValue),
			Data: map[string]any{"limit": mesh.MaxVaultValue, "size": len(req.Value)},
		}
	}
	if err != nil {
		return nil, fmt.Errorf("seal vault entry: %w", err)
	}
	f := wire.VaultSet{Key: req.Key, Ciphertext: box.Ciphertext, Nonce: box.Nonce, SealedKey: box.SealedKey, EntryType: req.Type, MountPath: optional(req.Mount), Description: optional(req.Description)}
	if err := f.Validate(); err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_entry", Detail: err.Error()}
	}
	fields, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode vault entry: %w", err)
	}
	if _, err := m.call(ctx, d.linkOf(ctx, c.Actor, m), wire.TypeVaultSet, fields); err != nil {
		return nil, err
	}
	return nil, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (d *Daemon) vaultGet(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.VaultGet
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.permit(ctx, c.Actor, mesh.CapVault, req.Mesh)
	if err != nil {
		return nil, err
	}
	if err := wire.ValidVaultKey(req.Key); err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_entry", Detail: err.Error()}
	}
	fields, err := json.Marshal(wire.VaultGet{Keys: []string{req.Key}})
	if err != nil {
		return nil, fmt.Errorf("encode vault keys: %w", err)
	}
	reply, err := m.call(ctx, d.linkOf(ctx, c.Actor, m), wire.TypeVaultGet, fields)
	if err != nil {
		return nil, err
	}
	var got wire.VaultGetResult
	if err := wire.Decode(reply, &got); err != nil {
		return nil, fmt.Errorf("read vault entry: %w", err)
	}
	for _, e := range got.Entries {
		if e.Key != req.Key {
			continue
		}
		value, readable, err := mesh.OpenVault(m.member, mesh.VaultBox{Ciphertext: e.Ciphertext, Nonce: e.Nonce, SealedKey: e.SealedKey})
		if err != nil {
			return nil, &bus.APIError{Code: 409, Reason: "undecryptable", Detail: "this entry was not sealed for the member's key, or was changed"}
		}
		out := bus.VaultValue{Key: e.Key, Value: value, Type: e.EntryType, Readable: readable}
		if e.MountPath != nil {
			out.Mount = *e.MountPath
		}
		return out, nil
	}
	return nil, &bus.APIError{Code: 404, Reason: "no_entry", Detail: fmt.Sprintf("the vault holds no entry %q", req.Key)}
}
