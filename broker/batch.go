package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of an atomic batch, and how many messages one may have.
const (
	batchID     = "Nats-Batch-Id"
	batchSeq    = "Nats-Batch-Sequence"
	batchCommit = "Nats-Batch-Commit"
	maxBatch    = 1000
	// fewAlone is how many messages are written faster one by one than as a batch, which has a cost of its own.
	fewAlone = 8
)

// batchAck answers the last message of a batch.
type batchAck struct {
	Seq   uint64              `json:"seq"` // of the last message
	Count int                 `json:"count"`
	Error *jetstream.APIError `json:"error"`
}

// publishAll stores up to maxBatch messages of one stream in one atomic batch: all of them or none, one behind the other, with one fsync in all where each
// alone would have its own. It returns the sequence of the first. An error that is a *jetstream.APIError means that none is stored; after any other it is
// not known.
func (s *store) publishAll(ctx context.Context, msgs []*nats.Msg) (first uint64, err error) {
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
	answer, err := s.nc.RequestMsgWithContext(ctx, msgs[len(msgs)-1])
	if err != nil {
		return 0, fmt.Errorf("write batch: %w", err)
	}
	var ack batchAck
	switch err := json.Unmarshal(answer.Data, &ack); {
	case err != nil:
		return 0, fmt.Errorf("write batch: %w", err)
	case ack.Error != nil:
		return 0, fmt.Errorf("write batch: %w", ack.Error)
	case ack.Count != len(msgs) || ack.Seq < uint64(ack.Count):
		return 0, fmt.Errorf("write batch: %w: %.200s", errBatchAck, answer.Data)
	}
	return ack.Seq + 1 - uint64(ack.Count), nil
}

// errBatchAck is for a store that does not say what became of a batch.
var errBatchAck = errors.New("answer is not that of this batch")

// notStored reports whether a batch was refused, so that its messages may be written one by one.
func notStored(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api)
}

// withoutBatch takes the headers of a refused batch off its messages.
func withoutBatch(msgs []*nats.Msg) {
	for _, m := range msgs {
		m.Header.Del(batchID)
		m.Header.Del(batchSeq)
		m.Header.Del(batchCommit)
	}
}
