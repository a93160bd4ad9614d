package broker

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// wantsTopics announces what our daemon announces.
func wantsTopics(h *wire.Hello) { h.Capabilities = append(h.Capabilities, wire.CapTopicKeys) }

// ok asks and decodes the answer, which must not be an error.
func ok[T any](c *client, frameType string, fields map[string]any) T {
	c.t.Helper()
	data := c.call(frameType, fields)
	if e := into[wire.Error](c, data); e.Type == wire.TypeError {
		c.t.Fatalf("%s %v: %s", frameType, fields, data)
	}
	return into[T](c, data)
}

func (c *client) makeTopic(name string, more map[string]any) string {
	c.t.Helper()
	fields := map[string]any{"name": name}
	for k, v := range more {
		fields[k] = v
	}
	return ok[wire.TopicCreated](c, wire.TypeTopicCreate, fields).Topic.ID
}

func (c *client) join(topic string) {
	c.t.Helper()
	ok[wire.Ack](c, wire.TypeTopicJoin, map[string]any{"topic": topic})
}

func (c *client) topics() map[string]wire.Topic {
	c.t.Helper()
	all := map[string]wire.Topic{}
	for _, t := range ok[wire.TopicList](c, wire.TypeTopicList, nil).Topics {
		all[t.Name] = t
	}
	return all
}

func (c *client) history(topic string, more map[string]any) wire.TopicHistoryPage {
	c.t.Helper()
	fields := map[string]any{"topic": topic}
	for k, v := range more {
		fields[k] = v
	}
	return ok[wire.TopicHistoryPage](c, wire.TypeTopicHistory, fields)
}

func TestPostsReachTheMembers(t *testing.T) {
	r := newRig(t)
	bob, carol, dave := r.addMember("bob"), r.addMember("carol"), r.addMember("dave")
	a, b, d := r.member(r.owner, func(h *wire.Hello) { h.DisplayName = "alice at work" }), r.member(bob), r.member(dave)
	id := a.makeTopic("deploys", nil)
	b.join("deploys")
	c := r.member(carol)
	c.join(id)
	c.close()
	<-c.end

	f := sendFrame("p1", "#"+id, "ship it")
	f.BodyVersion, f.RequestFingerprint, f.Mentions = wire.BodySealed, strings.Repeat("ab", 32), []string{"bob"}
	ack := a.mustSend(f)
	check := func(who string, p wire.Push) {
		t.Helper()
		want := wire.Push{
			Type: wire.TypePush, MessageID: ack.MessageID, MeshID: r.mesh.ID, SenderPubkey: r.owner.PublicKey(), SenderMemberPubkey: r.owner.PublicKey(),
			SenderMemberID: r.memberID(r.owner), SenderName: "alice at work", Topic: "deploys", Priority: wire.PriorityNext, Nonce: f.Nonce, Ciphertext: f.Ciphertext,
			CreatedAt: p.CreatedAt, ClientMessageID: "p1", RequestFingerprint: f.RequestFingerprint, TargetSpec: "#" + id, BodyVersion: wire.BodySealed,
		}
		if string(mustJSON(t, p)) != string(mustJSON(t, want)) {
			t.Errorf("%s got %s\nwant %s", who, mustJSON(t, p), mustJSON(t, want))
		}
	}
	live := b.message()
	check("bob", live)
	again := r.member(carol)
	check("carol, who was away,", again.message())

	t.Run("a repeat is no second post", func(t *testing.T) {
		if ack := a.send(f); !ack.Duplicate || ack.MessageID != live.MessageID {
			t.Errorf("%+v", ack)
		}
	})
	t.Run("an answer refers to a post by the id that everybody sees", func(t *testing.T) {
		f := sendFrame("p2", "#"+id, "done")
		f.ReplyToID = ack.MessageID
		b.mustSend(f)
		if p := a.message(); p.ReplyToID != ack.MessageID {
			t.Errorf("%+v", p)
		}
		stray := sendFrame("p3", "#"+id, "done")
		stray.ReplyToID = "no post of this topic"
		b.mustSend(stray)
		if p := a.message(); p.ReplyToID != "" {
			t.Errorf("%+v", p)
		}
		page := b.history("deploys", nil)
		if len(page.Messages) != 3 || page.Messages[1].ReplyToID != ack.MessageID || page.Messages[2].ID != ack.MessageID || page.Messages[2].SenderName != "alice" || page.Messages[2].SentAs != "alice at work" {
			t.Errorf("%+v", page)
		}
	})
	t.Run("who does not belong to it hears nothing, and is refused", func(t *testing.T) {
		for _, target := range []string{"#" + id, "#deploys"} {
			if ack := d.send(sendFrame("x"+target, target, "hello?")); ack.Queued || ack.Code != wire.AckForbidden {
				t.Errorf("%s: %+v", target, ack)
			}
		}
		if ack := d.send(sendFrame("y", "#nowhere", "hello?")); ack.Queued || ack.Code != wire.AckNotFound {
			t.Errorf("%+v", ack)
		}
		for _, op := range []string{wire.TypeTopicHistory, wire.TypeTopicKey, wire.TypeTopicMarkRead, wire.TypeTopicPendingSeals} {
			d.refusedWith(wire.CodeForbidden, op, map[string]any{"topic": "deploys"})
			d.refusedWith(wire.CodeTopicNotFound, op, map[string]any{"topic": "nowhere"})
		}
		d.settle()
		d.quiet()
	})
	t.Run("nor does a member of another mesh", func(t *testing.T) {
		eve := newIdentity(t)
		other, err := r.broker.CreateMesh(t.Context(), "other", eve.PublicKey(), "eve")
		if err != nil {
			t.Fatal(err)
		}
		e := r.dial()
		e.write(wire.SignHello(wire.Hello{MeshID: other.ID, MemberID: other.MemberID, SessionID: "s", Capabilities: []string{wire.CapClientAck}}, eve, r.now()))
		e.wait(wire.TypeHelloAck)
		if ack := e.send(sendFrame("p1", "#"+id, "from outside")); ack.Queued || ack.Code != wire.AckNotFound {
			t.Errorf("%+v", ack)
		}
		e.refusedWith(wire.CodeTopicNotFound, wire.TypeTopicHistory, map[string]any{"topic": id})
	})
	t.Run("who left does not post, read or hear any more", func(t *testing.T) {
		ok[wire.Ack](b, wire.TypeTopicLeave, map[string]any{"topic": "deploys"})
		a.mustSend(sendFrame("p4", "#"+id, "bob is gone"))
		if p := again.message(); text(p) == "bob is gone" { // carol hears it; what she missed comes first
			t.Errorf("%+v", p)
		}
		if ack := b.send(sendFrame("p5", "#"+id, "me too")); ack.Code != wire.AckForbidden {
			t.Errorf("%+v", ack)
		}
		b.settle()
		b.quiet()
	})
	t.Run("an observer reads, and does not post", func(t *testing.T) {
		ok[wire.Ack](d, wire.TypeTopicJoin, map[string]any{"topic": "deploys", "role": "observer"})
		d.history("deploys", nil)
		if ack := d.send(sendFrame("p6", "#"+id, "psst")); ack.Code != wire.AckForbidden {
			t.Errorf("%+v", ack)
		}
	})
	t.Run("a member's own posts come back only to who asked for them", func(t *testing.T) {
		a.settle()
		a.quiet()
		own := r.member(r.owner, func(h *wire.Hello) {
			h.SessionID, h.Capabilities = "second", append(h.Capabilities, wire.CapOwnMulticast)
		})
		a.mustSend(sendFrame("p7", "#"+id, "for my other sessions"))
		for own.message().ClientMessageID != "p7" {
		}
		a.settle()
		a.quiet()
	})
	t.Run("all of it survives a restart", func(t *testing.T) {
		before := a.history("deploys", nil)
		r.restart()
		a := r.member(r.owner)
		if after := a.history("deploys", nil); string(mustJSON(t, after.Messages)) != string(mustJSON(t, before.Messages)) {
			t.Errorf("%+v\nbefore %+v", after, before)
		}
		if ack := r.member(bob).send(sendFrame("p8", "#"+id, "still out")); ack.Code != wire.AckForbidden {
			t.Errorf("%+v", ack)
		}
	})
}

func TestHistoryIsPagedByPosts(t *testing.T) {
	_, fixed := fakeClock(time.Now())
	r := newRig(t, fixed) // all posts have the same time
	a := r.member(r.owner)
	id := a.makeTopic("log", nil)
	var want []string
	for i := range 12 {
		want = append(want, a.mustSend(sendFrame(fmt.Sprint(i), "#"+id, fmt.Sprint(i))).MessageID)
	}
	slices.Reverse(want)
	var got []string
	for before, more := "", true; more; {
		page := a.history("log", map[string]any{"limit": 5, "beforeId": before})
		for _, m := range page.Messages {
			got = append(got, m.ID)
		}
		before, more = got[len(got)-1], page.HasMore
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	for name, c := range map[string]struct{ limit, n int }{"none": {0, 12}, "too many": {9999, 12}, "negative": {-3, 1}, "one": {1, 1}} {
		if n := len(a.history(id, map[string]any{"limit": c.limit}).Messages); n != c.n {
			t.Errorf("limit %s: %d posts", name, n)
		}
	}
	a.refusedWith(wire.CodeNotFound, wire.TypeTopicHistory, map[string]any{"topic": "log", "beforeId": "nonsense"})

	t.Run("a page of large posts ends early and says so", func(t *testing.T) {
		for i := range 10 {
			a.mustSend(sendFrame(fmt.Sprint("big", i), "#"+id, strings.Repeat("x", 45_000)))
		}
		page := a.history("log", map[string]any{"limit": 20})
		if len(page.Messages) >= 10 || len(page.Messages) < 2 || !page.HasMore {
			t.Errorf("%d posts, more %v", len(page.Messages), page.HasMore)
		}
	})
}

func TestWhoseTopicItIs(t *testing.T) {
	r := newRig(t)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, b, c := r.member(r.owner), r.member(bob), r.member(carol)
	lead := func(c *client, topic, name string) string {
		t.Helper()
		for _, m := range ok[wire.TopicMembers](c, wire.TypeTopicMembers, map[string]any{"topic": topic}).Members {
			if m.DisplayName == name {
				return m.Role
			}
		}
		return ""
	}

	t.Run("making one that exists makes nobody lead", func(t *testing.T) {
		a.makeTopic("ops", map[string]any{"description": "what runs"})
		made := ok[wire.TopicCreated](b, wire.TypeTopicCreate, map[string]any{"name": "ops", "visibility": "private"})
		if made.Created || made.Topic.Visibility != "public" || lead(a, "ops", "bob") != "member" || lead(a, "ops", "alice") != "lead" {
			t.Errorf("%+v; bob is %q", made, lead(a, "ops", "bob"))
		}
	})
	t.Run("nobody makes himself lead", func(t *testing.T) {
		c.refusedWith(wire.CodeForbidden, wire.TypeTopicJoin, map[string]any{"topic": "ops", "role": "lead"})
		ok[wire.Ack](b, wire.TypeTopicJoin, map[string]any{"topic": "ops", "role": "lead"}) // a member already: nothing changes
		if role := lead(a, "ops", "bob"); role != "member" {
			t.Errorf("bob is %q", role)
		}
		b.refusedWith(wire.CodeForbidden, wire.TypeTopicJoin, map[string]any{"topic": "ops", "memberId": r.memberID(carol)})
		ok[wire.Ack](a, wire.TypeTopicJoin, map[string]any{"topic": "ops", "memberId": bob.PublicKey(), "role": "lead"})
		if role := lead(a, "ops", "bob"); role != "lead" {
			t.Errorf("bob is %q", role)
		}
	})
	t.Run("a private one is entered by invitation", func(t *testing.T) {
		id := b.makeTopic("secret", map[string]any{"visibility": "private"})
		if _, listed := c.topics()["secret"]; listed {
			t.Error("carol sees it")
		}
		for op, fields := range map[string]map[string]any{
			wire.TypeTopicJoin: nil, wire.TypeTopicMembers: nil, wire.TypeTopicHistory: nil, wire.TypeTopicLeave: {"memberId": r.memberID(bob)},
		} {
			all := map[string]any{"topic": id}
			for k, v := range fields {
				all[k] = v
			}
			c.refusedWith(wire.CodeTopicNotFound, op, all)
		}
		if ack := c.send(sendFrame("x", "#"+id, "hello?")); ack.Code != wire.AckNotFound {
			t.Errorf("%+v", ack)
		}
		c.refusedWith(wire.CodeForbidden, wire.TypeTopicCreate, map[string]any{"name": "secret"})
		// The mesh's owner knows of it and can end memberships, and reads nothing.
		if row, listed := a.topics()["secret"]; !listed || row.Role != "" || row.MemberCount != 1 {
			t.Errorf("alice sees %+v", row)
		}
		lead(a, "secret", "bob")
		a.refusedWith(wire.CodeForbidden, wire.TypeTopicJoin, map[string]any{"topic": id})
		a.refusedWith(wire.CodeForbidden, wire.TypeTopicHistory, map[string]any{"topic": id})
		a.refusedWith(wire.CodeForbidden, wire.TypeTopicKey, map[string]any{"topic": id})

		ok[wire.Ack](b, wire.TypeTopicJoin, map[string]any{"topic": "secret", "memberId": r.memberID(carol)})
		c.history("secret", nil)
		b.refusedWith(wire.CodeNotFound, wire.TypeTopicJoin, map[string]any{"topic": "secret", "memberId": "nobody"})
		ok[wire.Ack](a, wire.TypeTopicLeave, map[string]any{"topic": "secret", "memberId": r.memberID(carol)})
		c.refusedWith(wire.CodeTopicNotFound, wire.TypeTopicHistory, map[string]any{"topic": "secret"})
	})
	t.Run("when the last lead goes, who was there longest is lead", func(t *testing.T) {
		c.makeTopic("shift", nil)
		b.join("shift")
		ok[wire.Ack](c, wire.TypeTopicLeave, map[string]any{"topic": "shift"})
		ok[wire.Ack](b, wire.TypeTopicJoin, map[string]any{"topic": "shift", "memberId": r.memberID(r.owner)})
		if lead(b, "shift", "alice") == "" {
			t.Error("bob could not invite")
		}
	})
	t.Run("everybody belongs to general, and may leave it", func(t *testing.T) {
		id := a.topics()["general"].ID
		if row := c.topics()["general"]; row.Role != "member" || row.MemberCount != 3 || row.Generation != 0 {
			t.Errorf("%+v", row)
		}
		if role := lead(c, "general", "alice"); role != "lead" {
			t.Errorf("the owner is %q", role)
		}
		a.mustSend(sendFrame("g1", "#"+id, "hello all"))
		if p := c.message(); text(p) != "hello all" || p.Topic != "general" || p.BodyVersion != wire.BodyPlain {
			t.Errorf("%+v", p)
		}
		ok[wire.Ack](b, wire.TypeTopicMarkRead, map[string]any{"topic": "general"})
		ok[wire.Ack](c, wire.TypeTopicLeave, map[string]any{"topic": "general"})
		r.restart()
		c, b := r.member(carol), r.member(bob)
		if row := c.topics()["general"]; row.Role != "" || row.MemberCount != 2 {
			t.Errorf("%+v", row)
		}
		dave := r.addMember("dave")
		if row := r.member(dave).topics()["general"]; row.Role != "member" || row.MemberCount != 3 {
			t.Errorf("dave: %+v", row)
		}
		c.join("general")
		members := ok[wire.TopicMembers](b, wire.TypeTopicMembers, map[string]any{"topic": "general"}).Members
		if len(members) != 4 || members[1].DisplayName != "bob" || members[1].LastReadAt == nil || members[0].LastReadAt != nil {
			t.Errorf("%+v", members)
		}
	})
	t.Run("odd requests are refused", func(t *testing.T) {
		a := r.member(r.owner)
		for _, fields := range []map[string]any{
			{"name": ""},
			{"name": "#x"},
			{"name": " x"},
			{"name": "a\nb"},
			{"name": strings.Repeat("x", 200)},
			{"name": "x", "visibility": "hidden"},
			{"name": "x", "key": map[string]any{"encryptedKey": "AAAA", "nonce": "AAAA"}},
		} {
			a.refusedWith(wire.CodeInvalid, wire.TypeTopicCreate, fields)
		}
		a.refusedWith(wire.CodeInvalid, wire.TypeTopicJoin, map[string]any{"topic": "ops", "role": "king"})
		a.refusedWith(wire.CodeInvalid, wire.TypeTopicMembers, nil)
	})
}

// sealed is a key sealed by one member for another, as the frames carry it.
func sealedFor(t *testing.T, key mesh.TopicKey, from, to mesh.Identity) wire.SealedKey {
	t.Helper()
	nonce, box, err := key.SealFor(from, to.PublicKey(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return wire.SealedKey{EncryptedKey: base64.StdEncoding.EncodeToString(box), Nonce: base64.StdEncoding.EncodeToString(nonce)}
}

func openedBy(t *testing.T, who mesh.Identity, encryptedKey, nonce string) mesh.TopicKey {
	t.Helper()
	box, err := base64.StdEncoding.DecodeString(encryptedKey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := base64.StdEncoding.DecodeString(nonce)
	if err != nil {
		t.Fatal(err)
	}
	key, err := mesh.OpenTopicKey(who, n, box)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func fieldsOf(t *testing.T, v any) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(mustJSON(t, v), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "type")
	return m
}

func TestTopicKeysTravelSealed(t *testing.T) {
	r := newRig(t)
	bob, carol := r.addMember("bob"), r.addMember("carol")
	a, b, c := r.member(r.owner, wantsTopics), r.member(bob, wantsTopics), r.member(carol) // carol's client is one of the reference
	first, second := mesh.TopicKey{1}, mesh.TopicKey{2}
	a.makeTopic("plans", map[string]any{"key": sealedFor(t, first, r.owner, r.owner)})

	get := func(c *client, who mesh.Identity) (mesh.TopicKey, wire.TopicKey) {
		t.Helper()
		k := ok[wire.TopicKey](c, wire.TypeTopicKey, map[string]any{"topic": "plans"})
		return openedBy(t, who, k.EncryptedKey, k.Nonce), k
	}
	if key, k := get(a, r.owner); key != first || k.Generation != 1 || k.SenderPubkey != r.owner.PublicKey() {
		t.Fatalf("%+v", k)
	}
	b.join("plans")
	b.refusedWith(wire.CodeKeyNotSealed, wire.TypeTopicKey, map[string]any{"topic": "plans"})
	b.refusedWith(wire.CodeForbidden, wire.TypeTopicSeal, fieldsOf(t, wire.TopicSeal{Topic: "plans", MemberID: r.memberID(bob), SealedKey: sealedFor(t, second, bob, bob)}))

	var need wire.TopicEvent
	if err := json.Unmarshal(a.event(wire.EventTopicSealNeeded).EventData, &need); err != nil || need.MemberID != r.memberID(bob) || need.Topic != "plans" {
		t.Errorf("%+v, %v", need, err)
	}
	pending := ok[wire.TopicPending](a, wire.TypeTopicPendingSeals, map[string]any{"topic": need.TopicID})
	if len(pending.Pending) != 1 || pending.Pending[0].Pubkey != bob.PublicKey() || pending.Generation != 1 {
		t.Fatalf("%+v", pending)
	}
	seal := wire.TopicSeal{Topic: "plans", MemberID: r.memberID(bob), SealedKey: sealedFor(t, first, r.owner, bob)}
	ok[wire.TopicSealed](a, wire.TypeTopicSeal, fieldsOf(t, seal))
	b.event(wire.EventTopicChanged)
	if key, _ := get(b, bob); key != first {
		t.Error("bob has another key")
	}

	t.Run("a sealed key is not replaced by another", func(t *testing.T) {
		seal := wire.TopicSeal{Topic: "plans", MemberID: r.memberID(r.owner), SealedKey: sealedFor(t, second, bob, r.owner)}
		ok[wire.TopicSealed](b, wire.TypeTopicSeal, fieldsOf(t, seal))
		if key, _ := get(a, r.owner); key != first {
			t.Error("alice's key was replaced")
		}
	})
	t.Run("it is sealed for members only", func(t *testing.T) {
		a.refusedWith(wire.CodeNotInTopic, wire.TypeTopicSeal, fieldsOf(t, wire.TopicSeal{Topic: "plans", MemberID: r.memberID(carol), SealedKey: seal.SealedKey}))
		a.refusedWith(wire.CodeTopicKeyMoved, wire.TypeTopicSeal, fieldsOf(t, wire.TopicSeal{Topic: "plans", MemberID: r.memberID(bob), Generation: 7, SealedKey: seal.SealedKey}))
	})
	rotate := func(generation int, keys ...wire.SealedKeyFor) map[string]any {
		return fieldsOf(t, wire.TopicRotate{Topic: "plans", Generation: generation, Keys: keys})
	}
	own := func(key mesh.TopicKey) wire.SealedKeyFor {
		return wire.SealedKeyFor{MemberID: r.memberID(r.owner), SealedKey: sealedFor(t, key, r.owner, r.owner)}
	}
	t.Run("only a lead makes a new one, for himself too, and the next one only", func(t *testing.T) {
		b.refusedWith(wire.CodeForbidden, wire.TypeTopicRotate, rotate(2, own(second)))
		a.refusedWith(wire.CodeTopicKeyMoved, wire.TypeTopicRotate, rotate(1, own(second)))
		a.refusedWith(wire.CodeTopicKeyMoved, wire.TypeTopicRotate, rotate(3, own(second)))
		a.refusedWith(wire.CodeInvalid, wire.TypeTopicRotate, rotate(2, wire.SealedKeyFor{MemberID: r.memberID(bob), SealedKey: seal.SealedKey}))
		a.refusedWith(wire.CodeInvalid, wire.TypeTopicRotate, rotate(2))
	})
	c.join("plans")
	ok[wire.TopicSealed](b, wire.TypeTopicSeal, fieldsOf(t, wire.TopicSeal{Topic: "plans", MemberID: r.memberID(carol), SealedKey: sealedFor(t, first, bob, carol)}))
	if key, _ := get(c, carol); key != first {
		t.Error("carol has another key")
	}
	t.Run("when somebody leaves, a lead is asked for a new one", func(t *testing.T) {
		ok[wire.Ack](c, wire.TypeTopicLeave, map[string]any{"topic": "plans"})
		a.event(wire.EventTopicRotateNeeded)
		if !a.topics()["plans"].RotationDue || b.topics()["plans"].RotationDue {
			t.Errorf("alice: %+v, bob: %+v", a.topics()["plans"], b.topics()["plans"])
		}
		forCarol := wire.SealedKeyFor{MemberID: r.memberID(carol), SealedKey: sealedFor(t, second, r.owner, carol)}
		ok[wire.TopicRotated](a, wire.TypeTopicRotate, rotate(2, own(second), wire.SealedKeyFor{MemberID: r.memberID(bob), SealedKey: sealedFor(t, second, r.owner, bob)}, forCarol))
		key, k := get(b, bob)
		if key != second || len(k.Older) != 1 || openedBy(t, bob, k.Older[0].EncryptedKey, k.Older[0].Nonce) != first {
			t.Errorf("bob: %+v", k)
		}
		if a.topics()["plans"].RotationDue {
			t.Error("still due")
		}
		c.refusedWith(wire.CodeForbidden, wire.TypeTopicKey, map[string]any{"topic": "plans"})
		c.join("plans")
		if _, k := get(c, carol); k.Generation != 1 || len(k.Older) != 0 {
			t.Errorf("carol, back again, is handed %+v: what was sealed for her while she was away", k)
		}
	})
	t.Run("so when the mesh removes somebody, and after a restart", func(t *testing.T) {
		if err := r.broker.RevokeMember(t.Context(), r.mesh.ID, bob.PublicKey()); err != nil {
			t.Fatal(err)
		}
		a.event(wire.EventTopicRotateNeeded)
		r.restart()
		a := r.member(r.owner, wantsTopics)
		if row := a.topics()["plans"]; !row.RotationDue || !row.HasKey || row.Generation != 2 || row.PendingSeals != 1 {
			t.Errorf("%+v", row)
		}
	})
	t.Run("a topic without a key gets its first one from whoever is first", func(t *testing.T) {
		a, c := r.member(r.owner), r.member(carol)
		a.refusedWith(wire.CodeTopicUnencrypted, wire.TypeTopicKey, map[string]any{"topic": "general"})
		claim := fieldsOf(t, wire.TopicRotate{Topic: "general", Generation: 1, Keys: []wire.SealedKeyFor{{MemberID: r.memberID(carol), SealedKey: sealedFor(t, first, carol, carol)}}})
		ok[wire.TopicRotated](c, wire.TypeTopicRotate, claim)
		a.refusedWith(wire.CodeTopicKeyMoved, wire.TypeTopicRotate, fieldsOf(t, wire.TopicRotate{Topic: "general", Generation: 1, Keys: []wire.SealedKeyFor{own(second)}}))
		a.refusedWith(wire.CodeKeyNotSealed, wire.TypeTopicKey, map[string]any{"topic": "general"})
	})
}

func TestEventsAboutTopicsGoToThoseWhoUnderstandThem(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	a.makeTopic("quiet", map[string]any{"key": sealedFor(t, mesh.TopicKey{1}, r.owner, r.owner)})
	b.join("quiet")
	a.settle()
	b.settle()
	for _, c := range []*client{a, b} {
		for _, data := range c.held {
			if strings.Contains(string(data), `"event":"topic_`) {
				t.Errorf("%s", data)
			}
		}
	}
}
