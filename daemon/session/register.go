package session

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"claudemesh/daemon/groupcommit"
)

// Register makes a session live. One with the same id that is live is replaced in the same write and returned as
// replaced, so that its links and grants can be taken down. The session gets the key pair that its name had on this mesh
// before, unless a live session holds it; then another of the name's key pairs or a new one. A conversation that is known has
// a key of its own, see [Registration].
// Errors: ErrBadRegistration, ErrTokenInUse, *HeldError.
func (s *Store) Register(ctx context.Context, r Registration) (registered Session, replaced *Session, err error) {
	if r.Mesh == "" || r.Name == "" && r.DefaultName == "" || r.TokenHash == [32]byte{} || r.PID < 0 {
		return Session{}, nil, fmt.Errorf("register session: %w: mesh, name and token are required", ErrBadRegistration)
	}
	if len(r.Conversation) > MaxConversation {
		return Session{}, nil, fmt.Errorf("register session: %w: a conversation's id has at most %d bytes", ErrBadRegistration, MaxConversation)
	}
	err = s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		registered, replaced, err = s.register(tx, r)
		return err
	})
	if err != nil {
		return Session{}, nil, fmt.Errorf("register session: %w", err)
	}
	return registered, replaced, nil
}

func (s *Store) register(tx *groupcommit.Tx, r Registration) (registered Session, replaced *Session, err error) {
	known, err := takeUp(tx, &r)
	if err != nil {
		return Session{}, nil, err
	}
	before, err := first(collect(tx.Query(selectByID, r.ID)))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Session{}, nil, err
	}
	if err == nil && before.EndedAt.IsZero() {
		replaced = &before
	}
	if _, err := tx.Exec(deleteSession, r.ID); err != nil {
		return Session{}, nil, err
	}
	switch other, err := first(collect(tx.Query(selectByToken, r.TokenHash[:]))); {
	case err == nil && other.ID != r.ID:
		return Session{}, nil, ErrTokenInUse
	case err != nil && !errors.Is(err, ErrNotFound):
		return Session{}, nil, err
	}
	public, secret, err := s.keyFor(tx, r, known, before.PublicKey)
	if err != nil {
		return Session{}, nil, err
	}
	if r.Groups == nil {
		r.Groups = []string{}
	}
	groups, err := encodeList(r.Groups)
	if err != nil {
		return Session{}, nil, err
	}
	caps, err := encodeList(r.Caps)
	if err != nil {
		return Session{}, nil, err
	}
	now := s.now()
	if _, err := tx.Exec(insertSession, r.ID, r.Mesh, r.Name, secret.Reveal(), public, r.TokenHash[:], r.PID, r.StartTime, r.Cwd,
		r.Role, groups, caps, r.OnlyMesh, now, now, r.Parent, r.MessageMode, r.Nudge, r.Conversation); err != nil {
		return Session{}, nil, err
	}
	registered = Session{
		ID: r.ID, Mesh: r.Mesh, Name: r.Name, KeySecret: secret, PublicKey: public, TokenHash: r.TokenHash, PID: r.PID,
		StartTime: r.StartTime, Cwd: r.Cwd, Role: r.Role, Groups: r.Groups, Caps: r.Caps, OnlyMesh: r.OnlyMesh, Parent: r.Parent,
		RegisteredAt: fromMillis(now), LastSeenAt: fromMillis(now),
		MessageMode: r.MessageMode, Nudge: r.Nudge, Conversation: r.Conversation,
	}
	if r.OwnKey {
		return registered, replaced, nil // the conversation stays whose it was
	}
	return registered, replaced, s.keep(tx, registered)
}

// keyFor is the key pair of a registration: one that nobody had, the one of its conversation, or one of its name.
func (s *Store) keyFor(tx *groupcommit.Tx, r Registration, known conversation, before string) (public string, secret Secret, err error) {
	if r.OwnKey {
		return s.newKey()
	}
	public, secret, err = s.conversationKey(tx, r.Mesh, known)
	if err == nil && public == "" {
		return s.identity(tx, r.Mesh, r.Name, before)
	}
	return public, secret, err
}

// identity finds a key pair of this name that no live session holds, or makes one. preferred is the public key the
// session had before.
func (s *Store) identity(tx *groupcommit.Tx, mesh, name, preferred string) (public string, secret Secret, err error) {
	var stored string
	found, err := tx.One(freeIdentity, []any{mesh, name, preferred}, &public, &stored)
	if err != nil || found {
		return public, Secret(stored), err
	}
	if public, secret, err = s.newKey(); err != nil {
		return "", "", err
	}
	_, err = tx.Exec(insertIdentity, mesh, name, public, secret.Reveal(), s.now())
	return public, secret, err
}

func (s *Store) newKey() (public string, secret Secret, err error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(s.rand, seed); err != nil {
		return "", "", fmt.Errorf("make key pair: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	return hex.EncodeToString(key[ed25519.SeedSize:]), Secret(hex.EncodeToString(key)), nil
}
