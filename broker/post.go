package broker

import (
	"context"
	"fmt"
)

// post accepts a message that the broker itself makes: a reminder that fell due, a webhook's event, a watch that saw a change. rec.CMID is required: posting
// the same one again stores nothing, so a job that cannot know whether it has run may run again. rec.To are the mailboxes; a full one is skipped by nobody:
// the caller has decided. The sender is rec.SessionKey, shown as senderPubkey as it is; MemberPubkey stays empty unless a member is behind it.
func (b *Broker) post(ctx context.Context, rec *accepted) error {
	rec.ID = messageID(b.idSecret, rec.Mesh, rec.MemberID+"|"+rec.SessionKey, rec.CMID)
	if rec.At == 0 {
		rec.At = b.now().UnixMilli()
	}
	if rec.To == nil {
		rec.To = []string{}
	}
	future, no := b.accept(rec)
	if no != nil {
		return fmt.Errorf("post message: %w", no)
	}
	seq, err := future.wait(ctx)
	switch {
	case err == nil:
		b.store.bodies.put(seq, rec)
		b.fan.note(seq)
		b.fan.poke()
		return nil
	case idTaken(err):
		return nil // posted before
	}
	return fmt.Errorf("post message: %w", err)
}
