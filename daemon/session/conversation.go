package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"claudemesh/daemon/groupcommit"
)

// Conversations: what a client talks about outlives the session that it talks in. The registry knows which key, and which name, role and groups a conversation
// had on a mesh, so that the next session that takes it up is the same one to its peers.

// MaxConversation is the longest id of a conversation, in bytes.
const MaxConversation = 128

// keptConversations is how many conversations of a mesh are remembered: those that were used last.
const keptConversations = 1000

// HeldError means that the key of a conversation is held by a session that is live.
type HeldError struct {
	Holder       Session
	Conversation string // the one that was wanted; the holder may be in it, or in another that got the key of the same name
}

// Error names the holder.
func (e *HeldError) Error() string {
	return fmt.Sprintf("the conversation's key is held by session %s (%s)", e.Holder.ID, e.Holder.Name)
}

// conversation is a row of that table; the zero value is one that is not known.
type conversation struct{ id, publicKey, name, role, groups string }

// takeUp completes a registration by what is known of its conversation, and chooses its id.
func takeUp(tx *groupcommit.Tx, r *Registration) (conversation, error) {
	var c conversation
	var err error
	columns := []any{&c.id, &c.publicKey, &c.name, &c.role, &c.groups}
	if r.OwnKey {
		r.Conversation, r.Continue = "", false // whoever may take nobody's key takes up nobody's conversation
	}
	switch {
	case r.OwnKey: // nothing of what others left: neither the key nor the groups
	case r.Conversation != "":
		_, err = tx.One(selectConversation, []any{r.Mesh, r.Conversation}, columns...)
	case r.Continue:
		_, err = tx.One(lastConversation, []any{r.Mesh, r.Cwd}, columns...)
		r.Conversation = c.id
	}
	if err != nil {
		return c, err
	}
	if r.Name == "" {
		r.Name = c.name
	}
	if r.Name == "" {
		r.Name = r.DefaultName
	}
	if r.Role == "" {
		r.Role = c.role
	}
	if len(r.Groups) == 0 && c.groups != "" {
		if r.Groups, err = decodeList([]byte(c.groups)); err != nil {
			return c, err
		}
	}
	if r.ID == "" {
		r.ID, err = freeID(tx, r.Conversation)
	}
	return c, err
}

// freeID is the conversation's own id where that can be a session's, so that the two are one wherever they can be.
func freeID(tx *groupcommit.Tx, wanted string) (string, error) {
	id, err := uuid.Parse(wanted)
	if err != nil || id.String() != wanted {
		return uuid.NewString(), nil
	}
	switch s, err := first(collect(tx.Query(selectByID, wanted))); {
	case errors.Is(err, ErrNotFound) || err == nil && !s.EndedAt.IsZero():
		return wanted, nil
	case err != nil:
		return "", err
	}
	return uuid.NewString(), nil
}

// conversationKey is the key pair that a conversation had; empty when it had none. Error: *HeldError when a live session has it.
func (s *Store) conversationKey(tx *groupcommit.Tx, mesh string, c conversation) (public string, secret Secret, err error) {
	if c.publicKey == "" {
		return "", "", nil
	}
	switch holder, err := first(collect(tx.Query(selectHolder, mesh, c.publicKey))); {
	case err == nil:
		return "", "", &HeldError{holder, c.id}
	case !errors.Is(err, ErrNotFound):
		return "", "", err
	}
	var stored string
	found, err := tx.One(selectIdentity, []any{mesh, c.publicKey}, &stored)
	if err != nil || !found {
		return "", "", err
	}
	return c.publicKey, Secret(stored), nil
}

// keep notes the conversation of a live session, if it is known, and forgets the oldest ones.
func (s *Store) keep(tx *groupcommit.Tx, live Session) error {
	if live.Conversation == "" {
		return nil
	}
	var secret string
	if found, err := tx.One(selectIdentity, []any{live.Mesh, live.PublicKey}, &secret); err != nil || !found {
		return err // its key is its own (Registration.OwnKey): the conversation stays whose it is
	}
	groups := live.Groups
	if groups == nil {
		groups = []string{}
	}
	list, err := encodeList(groups)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(keepConversation, live.Mesh, live.Conversation, live.PublicKey, live.Name, live.Role, list, live.Cwd, s.now()); err != nil {
		return err
	}
	_, err = tx.Exec(pruneConversations, live.Mesh, keptConversations)
	return err
}

// leave notes when the conversation of a session that ends was used last.
func (s *Store) leave(tx *groupcommit.Tx, ended Session) error {
	if ended.Conversation == "" {
		return nil
	}
	_, err := tx.Exec(touchConversation, s.now(), ended.Mesh, ended.Conversation)
	return err
}

// SetConversation notes what the client of a live session talks about now; the session keeps its key, and the conversation gets it.
// Errors: ErrNotFound, ErrBadRegistration for an id that is empty or too long.
func (s *Store) SetConversation(ctx context.Context, id, conversation string) error {
	if conversation == "" || len(conversation) > MaxConversation {
		return fmt.Errorf("set conversation of session: %w: a conversation's id has 1 to %d bytes", ErrBadRegistration, MaxConversation)
	}
	err := s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		live, err := first(collect(tx.Query(setConversation, conversation, id)))
		if err != nil {
			return err
		}
		return s.keep(tx, live)
	})
	if err != nil {
		return fmt.Errorf("set conversation of session: %w", err)
	}
	return nil
}
