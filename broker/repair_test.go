package broker

import (
	"fmt"
	"testing"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// A backup of a live broker is taken stream by stream. Whatever the order, a restored reference must never come to mean a later message.
func TestStreamsOfDifferentMoments(t *testing.T) {
	r := newRig(t)
	bob, eve := r.addMember("bob"), r.addMember("eve")
	send := func(to mesh.Identity, id string) {
		t.Helper()
		owner := r.member(r.owner)
		owner.write(wire.Send{Type: wire.TypeSend, ID: id, TargetSpec: to.PublicKey(), Priority: "next", Nonce: "AA==", Ciphertext: "AA==", ClientMessageID: id})
		if ack := into[wire.Ack](owner, owner.wait(wire.TypeAck)); !ack.Queued {
			t.Fatalf("%+v", ack)
		}
		owner.close()
	}
	send(bob, "before")
	r.mailIn(r.mailboxOf(bob), 1)
	s := r.broker.store
	for seq := uint64(2); seq < 5; seq++ { // mailboxes and cursor of a later moment than the messages
		if _, err := s.js.Publish(t.Context(), r.mailboxOf(eve), mustJSON(t, mail{Accept: seq})); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	r.startStore()
	s2, err := openStore(t.Context(), r.cfg.NC, r.cfg.Limits.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if err := s2.put(t.Context(), cursorKey, uint64(4)); err != nil {
		t.Fatal(err)
	}
	r.startBroker()
	if n := r.broker.store.depth.get(r.mailboxOf(eve)); n != 0 {
		t.Errorf("eve has %d references to messages that are not there", n)
	}
	for i := range 4 {
		send(bob, fmt.Sprint("after", i))
	}
	r.mailIn(r.mailboxOf(bob), 5)
	r.mailIn(r.mailboxOf(eve), 0)
}
