package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// repair makes streams agree that were restored from backups of different moments. References to messages that CM_ACCEPT does not have would come to mean the
// messages that get those sequences next, whoever they are for: they are removed. A position beyond the last message would make the fan-out pass over new ones: it is
// set back. A store that was not restored needs neither. It returns the position to go on from.
func (s *store) repair(ctx context.Context, at position) (_ position, removed int, err error) {
	info, err := s.accept.Info(ctx)
	if err != nil {
		return at, 0, fmt.Errorf("look at stream %s: %w", acceptStream, err)
	}
	last := info.State.LastSeq
	for { // references are written in the order of acceptance, so the first good one from the end is the end of the bad ones
		msg, err := s.mail.GetLastMsgForSubject(ctx, mailPrefix+">")
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return at, removed, fmt.Errorf("look at stream %s: %w", mailStream, err)
		}
		var m mail
		if json.Unmarshal(msg.Data, &m) != nil || m.Accept <= last {
			break
		}
		if err := s.mail.DeleteMsg(ctx, msg.Sequence); err != nil {
			return at, removed, fmt.Errorf("remove reference: %w", err)
		}
		s.depth.add(msg.Subject, -1)
		removed++
	}
	if at.Accept > last {
		at = position{Accept: last} // of mail nothing is known: the fan-out looks at all of it, once
	}
	return at, removed, nil
}
