package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestTheFanOutRepairsWhatACrashLeft(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	for i := range 5 {
		a.mustSend(sendFrame(fmt.Sprint("m", i), bob.PublicKey(), fmt.Sprint(i)))
	}
	r.mailIn(r.mailboxOf(bob), 5)
	t.Run("a cursor that was not saved adds nothing", func(t *testing.T) {
		r.stop()
		r.startStore()
		store, err := openStore(t.Context(), r.cfg.NC, Limits{}.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		if err := store.put(t.Context(), cursorKey, 0); err != nil {
			t.Fatal(err)
		}
		r.startBroker()
		a = r.member(r.owner)
		a.mustSend(sendFrame("after", r.addMember("x").PublicKey(), "x")) // is fanned out behind everything that is done again
		r.mailIn(r.mailboxOf(r.lastMember), 1)
		r.mailIn(r.mailboxOf(bob), 5)
	})
	t.Run("what is missing of a broadcast is added, once", func(t *testing.T) {
		var all []mesh.Identity
		for i := range 3 * fewAlone {
			all = append(all, r.addMember(fmt.Sprint("listener ", i)))
		}
		a.mustSend(sendFrame("cast", "*", "all"))
		for _, who := range all {
			r.mailIn(r.mailboxOf(who), 1)
		}
		r.stop()
		r.startStore()
		store, err := openStore(t.Context(), r.cfg.NC, Limits{}.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		if err := store.put(t.Context(), cursorKey, position{}); err != nil {
			t.Fatal(err)
		}
		for _, who := range all[:fewAlone] {
			if err := store.mail.Purge(t.Context(), jetstream.WithPurgeSubject(r.mailboxOf(who))); err != nil {
				t.Fatal(err)
			}
		}
		r.startBroker()
		a = r.member(r.owner)
		a.mustSend(sendFrame("behind", r.addMember("y").PublicKey(), "x"))
		r.mailIn(r.mailboxOf(r.lastMember), 1)
		for _, who := range all {
			r.mailIn(r.mailboxOf(who), 1)
		}
	})
	t.Run("a message without references gets them", func(t *testing.T) {
		rec := accepted{ID: mustID(t), CMID: "orphan", Mesh: r.mesh.ID, MemberID: r.mesh.MemberID, MemberPubkey: r.owner.PublicKey(), Target: bob.PublicKey(), To: []string{bob.PublicKey()}, Priority: "next"}
		if _, err := r.broker.store.js.PublishMsg(t.Context(), &nats.Msg{Subject: acceptSubject(rec.Mesh, rec.ID), Data: mustJSON(t, &rec)}); err != nil {
			t.Fatal(err)
		}
		r.restart()
		b := r.member(bob)
		for i := range 5 {
			if p := b.message(); text(p) != fmt.Sprint(i) {
				t.Errorf("%d is %q", i, text(p))
			}
		}
		for _, id := range []string{"cast", "orphan"} {
			if p := b.message(); p.ClientMessageID != id {
				t.Errorf("%s: %+v", id, p)
			}
		}
	})
}

func TestABrokenMailStreamStopsAcceptanceAndHeals(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a := r.member(r.owner)
	s := r.broker.store
	if err := s.js.DeleteStream(t.Context(), mailStream); err != nil {
		t.Fatal(err)
	}
	var taken []string
	for i := 0; ; i++ {
		ack := a.send(sendFrame(fmt.Sprint("m", i), bob.PublicKey(), "x"))
		if !ack.Queued {
			if ack.Code != wire.AckUnavailable {
				t.Fatalf("%+v", ack)
			}
			break
		}
		taken = append(taken, ack.ID)
	}
	if _, err := s.js.CreateStream(t.Context(), mailConfig(r.broker.lim)); err != nil {
		t.Fatal(err)
	}
	b := r.member(bob)
	for _, id := range taken {
		p := b.message()
		if p.ClientMessageID != id {
			t.Fatalf("%s where %s was due", p.ClientMessageID, id)
		}
		b.clientAck(p, "")
	}
	for !a.send(sendFrame("healed", bob.PublicKey(), "x")).Queued {
	}
}

func TestCloseGivesUpOnTimeWithClientsThatDoNotAnswer(t *testing.T) {
	r := newRig(t)
	for range 3 {
		r.dial()
	}
	r.member(r.owner)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.broker.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > lingerFor+time.Second {
		t.Errorf("took %v", d)
	}
	if err := r.broker.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestMessageIDs(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.StringN(0, 8, 16)
		a := [3]string{part.Draw(t, "mesh"), part.Draw(t, "member"), part.Draw(t, "id")}
		b := [3]string{part.Draw(t, "mesh2"), part.Draw(t, "member2"), part.Draw(t, "id2")}
		x, y := messageID(secret, a[0], a[1], a[2]), messageID(secret, b[0], b[1], b[2])
		if !validID(x) || (x == y) != (a == b) {
			t.Fatalf("%q %q: %s %s", a, b, x, y)
		}
	})
	if messageID(secret, "ab", "c", "d") == messageID(secret, "a", "bc", "d") {
		t.Error("parts run into each other")
	}
	if messageID(secret, "a", "b", "c") == messageID([]byte("other"), "a", "b", "c") {
		t.Error("the secret does not matter")
	}
}

func TestRandomIDs(t *testing.T) {
	if id, err := newID(strings.NewReader(strings.Repeat("\xff\x00", 200))); err != nil || id != strings.Repeat("0", 32) {
		t.Errorf("%q %v: bytes over 247 must be skipped", id, err)
	}
	if _, err := newID(strings.NewReader("short")); err == nil {
		t.Error("no error without randomness")
	}
	seen := map[string]bool{}
	for range 1000 {
		id := mustID(t)
		if !validID(id) || seen[id] {
			t.Fatal(id)
		}
		seen[id] = true
	}
}

// TestStoredFormats pins what lies on disk: a store written today must be readable by every later version.
func TestStoredFormats(t *testing.T) {
	for _, tc := range []struct {
		v    any
		want string
	}{
		{mail{Accept: 7}, `{"a":7}`},
		{
			mail{Receipt: &wire.Receipt{Type: "receipt", MessageID: "m", ClientMessageID: "c", State: "delivered", RecipientPubkey: "k", At: "t"}},
			`{"r":{"type":"receipt","mailId":"","messageId":"m","client_message_id":"c","state":"delivered","recipientPubkey":"k","at":"t"}}`,
		},
		{
			accepted{ID: "i", CMID: "c", Mesh: "m", MemberID: "mi", MemberPubkey: "mp", SessionKey: "sk", Name: "n", Target: "*", Multicast: true, To: []string{"k"}, Priority: "now", Nonce: "no", Ciphertext: "ct", ReplyTo: "r", Fingerprint: "f", Digest: "d", At: 1},
			`{"id":"i","cmid":"c","mesh":"m","member_id":"mi","member_pubkey":"mp","session_key":"sk","name":"n","target":"*","multicast":true,"to":["k"],"priority":"now","nonce":"no","ciphertext":"ct","reply_to":"r","fingerprint":"f","digest":"d","at":1}`,
		},
		{inviteRecord{MeshID: "m", Role: "member", Expires: 2, MaxUses: 3, Used: 1}, `{"mesh_id":"m","role":"member","expires":2,"max_uses":3,"used":1}`},
		{memberRecord{ID: "i", Pubkey: "p", Name: "n", Role: "r", JoinedAt: 1}, `{"id":"i","pubkey":"p","name":"n","role":"r","joined_at":1}`},
	} {
		if got, err := json.Marshal(tc.v); err != nil || string(got) != tc.want {
			t.Errorf("got  %s\nwant %s (%v)", got, tc.want, err)
		}
	}
	if got := messageID([]byte("secret"), "mesh", "member", "cmid"); got != "zSU6uCo5btfWlwFKEqikkYXv3woQ5USj" {
		t.Errorf("message id %s", got)
	}
}

func TestWhoAsksForWhatWasAcceptedWaitsForIt(t *testing.T) {
	f := &fanout{wake: make(chan struct{}, 1), moved: make(chan struct{})}
	f.note(5)
	f.note(3) // an answer that came late
	done := make(chan error, 1)
	go func() { done <- f.caughtUp(t.Context()) }()
	<-f.wake // it asks for the work
	f.advance(4)
	<-f.wake // and again, because there is more to do
	select {
	case err := <-done:
		t.Fatalf("it returned at 4 of 5: %v", err)
	default:
	}
	f.advance(5)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := f.caughtUp(t.Context()); err != nil {
		t.Error(err)
	}
	f.note(6)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.caughtUp(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
