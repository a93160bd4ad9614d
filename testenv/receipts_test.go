package testenv_test

import (
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv"
	"claudemesh/testenv/faultproxy"
	"claudemesh/wire"
)

// forge is a broker that changes the receipts it hands to Ann.
func (f *faulty) forge(change func(*wire.Receipt)) {
	f.toA.SetHook(faultproxy.Chain(f.toA.hook, func(d faultproxy.Dir, frame []byte) [][]byte {
		var r wire.Receipt
		if d != faultproxy.ToClient || json.Unmarshal(frame, &r) != nil || r.Type != wire.TypeReceipt {
			return [][]byte{frame}
		}
		change(&r)
		out, err := json.Marshal(r)
		if err != nil {
			f.t.Error(err)
		}
		return [][]byte{out}
	}))
}

func (f *faulty) disbelieved() int {
	f.t.Helper()
	return f.status()[0].Disbelieved
}

func (f *faulty) state(id string) bus.OutboxItem {
	f.t.Helper()
	var item bus.OutboxItem
	f.ann.Do(bus.OpOutboxGet, bus.OutboxGet{ID: id, Mesh: f.mesh}, &item)
	return item
}

func TestAReceiptThatTheRecipientDidNotSignChangesNothing(t *testing.T) {
	f := newFaulty(t)
	first := f.alice.Send("bob", "a true one")
	f.ann.WaitState(f.mesh, first.ClientMessageID, bus.StateDelivered)
	if n := f.disbelieved(); n != 0 {
		t.Fatalf("%d receipts were not believed before anybody lied", n)
	}
	eve, err := mesh.NewIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	meshID, annKey, truly := f.status()[0].MeshID, f.ann.MemberKey(f.mesh), f.signatureOf(first.ClientMessageID)
	// signed is what a broker can make with a key of its own.
	signed := func(r *wire.Receipt) {
		r.RecipientPubkey = eve.PublicKey()
		at, err := time.Parse(time.RFC3339Nano, r.At)
		if err != nil {
			t.Error(err)
		}
		r.Signature, err = mesh.Receipt{
			MeshID: meshID, SenderMember: annKey, Recipient: eve.PublicKey(), MessageID: r.ClientMessageID, State: r.State, Via: r.Via, By: r.By, At: at.UnixMilli(),
		}.Sign(eve)
		if err != nil {
			t.Error(err)
		}
	}
	for name, c := range map[string]struct {
		to     string
		change func(*wire.Receipt)
	}{
		"it has no signature, as a peer of an older version sends": {"bob", func(r *wire.Receipt) { r.Signature = "" }},
		"it claims more than was signed":                           {"bob", func(r *wire.Receipt) { r.State = wire.StateSurfaced }},
		"it names another way":                                     {"bob", func(r *wire.Receipt) { r.Via = "channel" }},
		"it names another session":                                 {"bob", func(r *wire.Receipt) { r.By = "carol" }},
		"it tells another time":                                    {"bob", func(r *wire.Receipt) { r.At = wire.Timestamp(time.Unix(1, 0)) }},
		"its time is no time":                                      {"bob", func(r *wire.Receipt) { r.At = "never" }},
		"it is signed with a key of the broker's":                  {"bob", signed},
		"it is for a broadcast, by a member that the broker made":  {"*", signed},
		"its signature is of another message":                      {"bob", func(r *wire.Receipt) { r.Signature = truly }},
	} {
		t.Run(name, func(t *testing.T) {
			before := f.disbelieved()
			f.forge(c.change)
			sent := f.alice.Send(c.to, name)
			f.bob.WaitMessage(name)
			testenv.Wait(t, "the receipt to be turned down", nil, func() bool { return f.disbelieved() > before })
			if it := f.state(sent.ClientMessageID); it.State != bus.StateSent && it.State != bus.StateAccepted || len(it.Receipts) != 0 {
				t.Errorf("the message is %s with %d receipts", it.State, len(it.Receipts))
			}
		})
	}
	f.forge(func(*wire.Receipt) {})
	last := f.alice.Send("bob", "a true one again")
	got := f.bob.WaitMessage("a true one again")
	f.bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaHook}, nil)
	item := f.ann.WaitState(f.mesh, last.ClientMessageID, bus.StateSurfaced)
	for _, r := range item.Receipts {
		if r.Recipient != f.bob.Info.Pubkey || r.State == bus.StateSurfaced && (r.By != "bob" || r.Via != bus.ViaHook) {
			t.Errorf("receipt %+v", r)
		}
	}
}

func (f *faulty) status() []bus.MeshStatus {
	f.t.Helper()
	var s bus.Status
	f.ann.Do(bus.OpStatus, nil, &s)
	return s.Meshes
}

// signatureOf is Bob's signature of having got a message, as it passed.
func (f *faulty) signatureOf(id string) string {
	f.t.Helper()
	f.toB.mu.Lock()
	defer f.toB.mu.Unlock()
	for _, p := range f.toB.seen {
		var a wire.ClientAck
		if p.dir == faultproxy.ToBroker && p.cmid == id && json.Unmarshal(p.frame, &a) == nil && a.Signature != "" {
			return a.Signature
		}
	}
	f.t.Errorf("no signed acknowledgement of %s passed", id)
	return ""
}

func TestABroadcastIsDeliveredOnTheWordOfAMember(t *testing.T) {
	f := newFaulty(t)
	sent := f.alice.Send("*", "all of you")
	got := f.bob.WaitMessage("all of you")
	f.bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaChannel}, nil)
	item := f.ann.WaitState(f.mesh, sent.ClientMessageID, bus.StateSurfaced)
	found := false
	for _, r := range item.Receipts {
		found = found || r.State == bus.StateSurfaced && r.Recipient == f.ben.MemberKey(f.mesh) && r.By == "bob"
	}
	if !found {
		t.Errorf("receipts %+v", item.Receipts)
	}
}

func TestWhatCannotBeReadIsNotVouchedFor(t *testing.T) {
	f := newFaulty(t)
	f.toB.SetHook(faultproxy.Chain(f.toB.hook, func(d faultproxy.Dir, frame []byte) [][]byte {
		var p wire.Push
		if d != faultproxy.ToClient || json.Unmarshal(frame, &p) != nil || p.Type != wire.TypePush || p.Ciphertext == "" {
			return [][]byte{frame}
		}
		p.Ciphertext = "AAAA" + p.Ciphertext[4:]
		out, err := json.Marshal(p)
		if err != nil {
			t.Error(err)
		}
		return [][]byte{out}
	}))
	sent := f.alice.Send("bob", "secret")
	testenv.Wait(t, "the receipt to be turned down", nil, func() bool { return f.disbelieved() > 0 })
	if it := f.state(sent.ClientMessageID); it.State == bus.StateDelivered {
		t.Error("delivered, though nobody can read it")
	}
}

func TestAnAnswerReachesTheSenderWhicheverIDItNames(t *testing.T) {
	f := newFaulty(t)
	for name, id := range map[string]func(bus.InboxItem) string{
		"our own id of it": func(it bus.InboxItem) string { return it.ID },
		"the broker's id":  func(it bus.InboxItem) string { return it.BrokerMessageID },
		"the sender's id":  func(it bus.InboxItem) string { return it.ClientMessageID },
	} {
		t.Run(name, func(t *testing.T) {
			sent := f.alice.Send("bob", name)
			got := f.bob.WaitMessage(name)
			if err := testenv.Try(f.bob.Client, bus.SendSubject(f.mesh, f.bob.Info.ID, "dm"), bus.SendRequest{To: "alice", Body: "answer to " + name, ReplyTo: id(got)}, nil); err != nil {
				t.Fatal(err)
			}
			item := f.ann.WaitState(f.mesh, sent.ClientMessageID, bus.StateAnswered)
			if last := item.Receipts[len(item.Receipts)-1]; last.By != "bob" {
				t.Errorf("answered by %q", last.By)
			}
		})
	}
}
