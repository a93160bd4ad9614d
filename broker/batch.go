package broker

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// Headers of an atomic batch, and how many messages one may have.
const (
	batchID     = "Nats-Batch-Id"
	batchSeq    = "Nats-Batch-Sequence"
	batchCommit = "Nats-Batch-Commit"
	maxBatch    = 1000
)

// publishAll stores up to maxBatch messages of one stream in one atomic batch: all of them or none, with one fsync in all where each alone would have
// its own. It returns the sequence of the last. After an error that is the connection's rather than the stream's it is not known which of the two it was.
func (s *store) publishAll(ctx context.Context, msgs []*nats.Msg) (last uint64, err error) {
	id := strings.TrimPrefix(nats.NewInbox(), nats.InboxPrefix)
	for i, m := range msgs {
		if m.Header == nil {
			m.Header = nats.Header{}
		}
		m.Header.Set(batchID, id)
		m.Header.Set(batchSeq, strconv.Itoa(i+1))
		if i == len(msgs)-1 {
			m.Header.Set(batchCommit, "1")
			break
		}
		if err := s.nc.PublishMsg(m); err != nil {
			return 0, fmt.Errorf("write batch: %w", err)
		}
	}
	ack, err := s.js.PublishMsg(ctx, msgs[len(msgs)-1])
	if err != nil {
		return 0, fmt.Errorf("write batch of %d: %w", len(msgs), err)
	}
	return ack.Sequence, nil
}
