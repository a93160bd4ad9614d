package daemon

import (
	"context"
	"maps"
	"slices"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
)

// What tells that a message was before the model.

// findEvidence looks into the transcript for messages that wait.
func (c *climber) findEvidence(ctx context.Context) error {
	c.mu.Lock()
	found, err := c.transcript.read()
	c.mu.Unlock()
	if err != nil {
		c.l.d.opt.Log.Warn("transcript_not_read", "session", c.id, "error", err)
	}
	return c.seenIDs(ctx, inbox.EvidenceTranscript, slices.Collect(maps.Keys(found)))
}

// seenIDs surfaces the waiting messages that were shown under these ids.
func (c *climber) seenIDs(ctx context.Context, evidence string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	rows, err := c.l.d.inbox.WaitingFor(ctx, c.id, ids)
	if err != nil {
		return err
	}
	return c.seen(ctx, evidence, rows)
}

// seen surfaces waiting messages of which there is evidence.
func (c *climber) seen(ctx context.Context, evidence string, rows []inbox.Waiting) error {
	byVia := map[string][]string{}
	for _, w := range rows {
		via := w.PushedVia
		if w.State != inbox.DeliveryPushed {
			via = bus.ViaChannel // published for the shim, whose report is on its way
		}
		byVia[via] = append(byVia[via], w.Message.ID)
	}
	for via, ids := range byVia {
		if err := c.l.d.surface(ctx, c.id, ids, via, evidence); err != nil {
			return err
		}
		c.mu.Lock()
		for _, id := range ids {
			delete(c.offered, id)
		}
		if via == bus.ViaChannel && c.Channel != bus.ChannelProven {
			c.Channel = bus.ChannelProven
			c.keep(ctx)
		}
		c.mu.Unlock()
	}
	return nil
}
