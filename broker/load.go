package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// load fills the caches from the bucket and returns the fan-out's position.
func (b *Broker) load(ctx context.Context) (at position, err error) {
	type pending struct {
		kind, meshID, key string
		value             []byte
	}
	var later []pending // the bucket's order is that of the last writes: a member may come before its mesh
	var unplaced []pending
	err = b.store.under(ctx, ">", func(e jetstream.KeyValueEntry) error {
		value := e.Value()
		if id, ok := strings.CutPrefix(e.Key(), gonePrefix); ok {
			var stone goneRecord
			if err := json.Unmarshal(value, &stone); err != nil {
				return err
			}
			b.gone[id] = stone
			return nil
		}
		switch kind, meshID, rest := splitKey(e.Key()); kind {
		case idSecretKey:
			return json.Unmarshal(value, &b.idSecret)
		case cursorKey:
			return json.Unmarshal(value, &at)
		case "mesh":
			var rec meshRecord
			if err := json.Unmarshal(value, &rec); err != nil {
				return err
			}
			b.meshes[rec.ID] = newMeshState(rec)
		case "member", "state", "session":
			later = append(later, pending{kind, meshID, rest, value})
		case "invite":
			if rest == "" { // the first form: "invite." and the name, without the mesh
				unplaced = append(unplaced, pending{key: meshID, value: value})
				return nil
			}
			return b.loadInvite(meshID, rest, value)
		}
		return nil
	})
	if err != nil {
		return at, err
	}
	for id := range b.gone {
		delete(b.meshes, id) // a crash came between gravestone and purge
		maps.DeleteFunc(b.codes, func(_ string, at codeOf) bool { return at.meshID == id })
	}
	for _, kind := range []string{"member", "state", "session"} {
		for _, p := range later {
			if m := b.meshes[p.meshID]; m != nil && p.kind == kind {
				if err := m.load(p.kind, p.key, p.value); err != nil {
					return at, fmt.Errorf("read bucket: %s %s: %w", p.kind, p.key, err)
				}
			}
		}
	}
	for _, p := range unplaced {
		if err := b.placeInvite(ctx, p.key, p.value); err != nil {
			return at, err
		}
	}
	return at, b.loadTopics(ctx)
}

// loadInvite enters the code of an invite.
func (b *Broker) loadInvite(meshID, name string, value []byte) error {
	var rec inviteRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return err
	}
	if rec.Code != "" {
		b.codes[rec.Code] = codeOf{meshID, name}
	}
	return nil
}

// placeInvite moves an invite of the first form to its mesh. Done twice, it is done once.
func (b *Broker) placeInvite(ctx context.Context, name string, value []byte) error {
	var rec inviteRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return fmt.Errorf("read bucket: invite: %w", err)
	}
	if err := b.store.put(ctx, inviteKey(rec.MeshID, name), rec); err != nil {
		return err
	}
	if err := b.store.meta.Purge(ctx, "invite."+name); err != nil {
		return fmt.Errorf("move invite: %w", err)
	}
	return nil
}
