package broker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

func TestABatchIsStoredAsAWholeOrNotAtAll(t *testing.T) {
	r := newRig(t)
	s := r.broker.store
	batch := func(ids ...string) (msgs []*nats.Msg) {
		for _, id := range ids {
			msgs = append(msgs, &nats.Msg{Subject: "accept.batch." + id, Data: []byte("{}"), Header: nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}}})
		}
		return msgs
	}
	last := func() uint64 {
		info, err := s.accept.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.LastSeq
	}
	before := last()
	first, err := s.publishAll(t.Context(), batch("a", "b", "c"))
	if err != nil || first != before+1 || last() != before+3 {
		t.Fatalf("first is %d, last is %d, before them %d: %v", first, last(), before, err)
	}
	for i, id := range []string{"a", "b", "c"} {
		if msg, err := s.accept.GetMsg(t.Context(), first+uint64(i)); err != nil || msg.Subject != "accept.batch."+id {
			t.Errorf("%d is %v, %v", i, msg, err)
		}
	}
	for _, tc := range []struct {
		name string
		msgs []*nats.Msg
	}{
		{"one of its subjects is in use", batch("d", "a", "e")},
		{"two of its subjects are the same", batch("f", "g", "f")},
	} {
		t.Run("not when "+tc.name, func(t *testing.T) {
			if _, err := s.publishAll(t.Context(), tc.msgs); !notStored(err) || last() != before+3 {
				t.Errorf("%v, last is %d", err, last())
			}
		})
	}
}

func TestRepetitionsAmongManySendsAtOnce(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	const n = 300
	a, again := r.member(r.owner, withSession("one")), r.member(r.owner, withSession("two"))
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprint("m", i))
		a.write(sendFrame(ids[i], bob.PublicKey(), ids[i]))
		if i%3 == 0 { // on another connection, so that it comes before, with or behind the first
			again.write(sendFrame(ids[i], bob.PublicKey(), ids[i]))
		}
	}
	accepted := map[string]string{}
	fresh := 0
	for _, c := range []*client{a, again} {
		for range map[*client]int{a: n, again: n / 3}[c] {
			ack := into[wire.Ack](c, c.wait(wire.TypeAck))
			if id := accepted[ack.ID]; !ack.Queued || id != "" && id != ack.MessageID {
				t.Fatalf("%+v, and %q before", ack, id)
			}
			if accepted[ack.ID] = ack.MessageID; !ack.Duplicate {
				fresh++
			}
		}
	}
	if fresh != n {
		t.Errorf("%d sends were accepted as new, want %d", fresh, n)
	}
	b := r.member(bob)
	var got []string
	for range n {
		p := b.message()
		if text(p) != p.ClientMessageID || p.MessageID != accepted[p.ClientMessageID] {
			t.Fatalf("%s holds %q and is %s", p.ClientMessageID, text(p), p.MessageID)
		}
		got = append(got, p.ClientMessageID)
		b.clientAck(p, "")
	}
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		t.Errorf("received %v", got)
	}
	r.mailIn(r.mailboxOf(bob), 0)
	b.settle()
	b.quiet()
}
