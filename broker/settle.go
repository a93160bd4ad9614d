package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

// settler does what acknowledgements cause, in the background and in batches: first the receipt for the sender is stored, then the mail is deleted, so
// that a crash between the two repeats a push instead of losing a receipt.
type settler struct {
	store *store
	log   *slog.Logger
	jobs  chan settlement

	mu     sync.Mutex
	recent *simplelru.LRU[entry, struct{}] // acknowledged mail that may still be in the stream, or just was
	times  *simplelru.LRU[delivered, int64]
}

// entry is one entry of a mailbox. Sequences are unique within a stream only.
type entry struct {
	subject string
	seq     uint64
}

// settlement is one acknowledgement. Either half may be absent.
type settlement struct {
	subject string // mailbox of the mail to delete
	seq     uint64 // 0 = none
	prev    uint64 // the entry before it in its mailbox: nothing lies between them; 0 = not known
	receipt *receiptFor
}

type receiptFor struct {
	subject string
	receipt wire.Receipt
}

const (
	settleBatch  = 2048
	settleQueue  = 4096
	settleRecent = 2 * settleQueue
	settleTimes  = settleQueue
)

func newSettler(s *store, log *slog.Logger) *settler {
	// The only error is for a size below one.
	recent, _ := simplelru.NewLRU[entry, struct{}](settleRecent, nil)
	times, _ := simplelru.NewLRU[delivered, int64](settleTimes, nil)
	return &settler{store: s, log: log, jobs: make(chan settlement, settleQueue), recent: recent, times: times}
}

// add queues one settlement. It blocks when thousands are waiting; run always makes progress.
func (s *settler) add(j settlement) {
	if j.seq != 0 {
		s.mu.Lock()
		s.recent.Add(entry{j.subject, j.seq}, struct{}{})
		s.mu.Unlock()
	}
	s.jobs <- j
}

// settled reports whether an entry has been acknowledged, though the stream may still hold it: a new connection is not to see it again.
func (s *settler) settled(subject string, seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recent.Contains(entry{subject, seq})
}

// unsettle takes an acknowledgement back whose receipt could not be stored: the next connection sees the mail again, acknowledges it again, and the receipt
// has another chance.
func (s *settler) unsettle(j settlement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent.Remove(entry{j.subject, j.seq})
}

// close lets run end once everything queued is done. No add may follow.
func (s *settler) close() { close(s.jobs) }

func (s *settler) run() {
	for first := range s.jobs {
		batch := []settlement{first}
	more:
		for len(batch) < settleBatch {
			select {
			case j, ok := <-s.jobs:
				if !ok {
					break more
				}
				batch = append(batch, j)
			default:
				break more
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), storeDeadline)
		s.do(ctx, batch)
		cancel()
	}
}

func (s *settler) do(ctx context.Context, batch []settlement) {
	futures := make([]jetstream.PubAckFuture, len(batch))
	failed := make([]error, len(batch))
	for i, j := range batch {
		if j.receipt != nil {
			futures[i], failed[i] = s.publish(j.receipt)
		}
	}
	for i, f := range futures {
		if f == nil {
			continue
		}
		ack, err := await(ctx, f)
		if failed[i] = err; err == nil && !ack.Duplicate {
			s.store.depth.add(batch[i].receipt.subject, 1)
		}
	}
	done := map[string][]settlement{}
	for i, j := range batch {
		switch {
		case failed[i] != nil:
			s.log.Warn("receipt not stored, its mail stays", "err", failed[i])
			s.unsettle(j)
		case j.seq != 0:
			done[j.subject] = append(done[j.subject], j)
		}
	}
	for subject, js := range done {
		s.remove(subject, js)
	}
}

// remove deletes entries of one mailbox. Acknowledgements mostly come in order, and then the oldest entries go in one purge: every single delete is synced,
// and costs as much as a whole purge. A purge must not take along what was not acknowledged, so it reaches only as far as nothing can lie between.
func (s *settler) remove(subject string, js []settlement) {
	ctx, cancel := context.WithTimeout(context.Background(), storeDeadline)
	defer cancel()
	stream := s.store.holding(subject)
	slices.SortFunc(js, func(a, b settlement) int { return cmp.Compare(a.seq, b.seq) })
	js = slices.CompactFunc(js, func(a, b settlement) bool { return a.seq == b.seq })
	oldest := 0 // so many are the oldest entries of the mailbox, with nothing between them
	for from := uint64(1); oldest < len(js) && len(js) > 1; oldest, from = oldest+1, js[oldest].seq+1 {
		if oldest > 0 && js[oldest].prev == js[oldest-1].seq {
			continue
		}
		msg, err := stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(subject))
		if err != nil || msg.Sequence != js[oldest].seq {
			break
		}
	}
	if oldest > 1 {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(js[oldest-1].seq+1)); err != nil {
			s.log.Warn("acknowledged mail not purged", "seq", js[oldest-1].seq, "err", err)
			return
		}
		s.store.depth.add(subject, -oldest)
		js = js[oldest:]
	}
	for _, j := range js {
		switch err := stream.DeleteMsg(ctx, j.seq); {
		case err == nil:
			s.store.depth.add(subject, -1)
		case !gone(err):
			s.log.Warn("acknowledged mail not deleted", "seq", j.seq, "err", err)
		}
	}
}

func (s *settler) publish(r *receiptFor) (jetstream.PubAckFuture, error) {
	data, err := json.Marshal(mail{Receipt: &r.receipt})
	if err != nil {
		return nil, err
	}
	id := r.receipt.MessageID + r.receipt.RecipientPubkey + r.receipt.State
	return s.store.js.PublishMsgAsync(&nats.Msg{Subject: r.subject, Data: data}, jetstream.WithMsgID(id), jetstream.WithStallWait(storeDeadline))
}

// gone reports whether a delete failed because there was nothing left to delete; the client library tells no more than that it was refused.
func gone(err error) bool { return errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) }
