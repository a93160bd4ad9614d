package testenv_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/testenv"
	"claudemesh/wire"
)

// topicCall asks about topics as a machine's user.
func topicCall[T any](m *testenv.Machine, slug, op string, in any) (out T, err error) {
	m.T.Helper()
	err = testenv.Try(m.User(), bus.CallSubject(slug, bus.User, op), in, &out)
	return out, err
}

func mustTopic[T any](m *testenv.Machine, slug, op string, in any) T {
	m.T.Helper()
	out, err := topicCall[T](m, slug, op, in)
	if err != nil {
		m.T.Fatalf("%s: %v", op, err)
	}
	return out
}

// waitTopic waits until a topic, as a machine sees it, satisfies ok.
func waitTopic(m *testenv.Machine, slug, name, what string, ok func(wire.Topic) bool) wire.Topic {
	m.T.Helper()
	var found wire.Topic
	poke := make(chan struct{}, 1)
	sub, err := m.User().Subscribe(bus.EventSubject(slug, ">"), func(*nats.Msg) {
		select {
		case poke <- struct{}{}:
		default:
		}
	})
	if err != nil {
		m.T.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	testenv.Wait(m.T, "topic "+name+" "+what, poke, func() bool {
		for _, t := range mustTopic[wire.TopicList](m, slug, bus.CallTopicList, nil).Topics {
			if t.Name == name && ok(t) {
				found = t
				return true
			}
		}
		return false
	})
	return found
}

func hasKey(t wire.Topic) bool { return t.HasKey }

// texts are the posts of a topic as a machine reads them, oldest first; "" for one it cannot open.
func texts(m *testenv.Machine, slug, topic string) []string {
	m.T.Helper()
	page := mustTopic[bus.TopicPage](m, slug, bus.CallTopicHistory, bus.TopicHistory{Topic: topic, Limit: 200})
	out := make([]string, len(page.Messages))
	for i, p := range page.Messages {
		if p.Message != nil {
			out[len(out)-1-i] = *p.Message
		}
	}
	return out
}

func TestPostsToATopicAreSealed(t *testing.T) {
	host, guest := testenv.NewMachine(t), testenv.NewMachine(t)
	team := host.Create("team")
	var rec recorder
	through(t, host, guest, team, rec.hook)
	alice, bob := host.Session(team, "alice"), guest.Session(team, "bob")

	made := mustTopic[bus.TopicCreated](host, team, bus.CallTopicCreate, bus.TopicCreate{Name: "plans", Description: "what comes"})
	if !made.Created || !made.Sealed {
		t.Fatalf("%+v", made)
	}
	const before, there, back, away, open = "said before bob came", "the sealed plan goes out", "the sealed answer comes back", "said while bob is away", "an open word to all"
	first := alice.Send("#plans", before)
	if first.BodyVersion != wire.BodySealed || first.TopicID != made.ID {
		t.Errorf("%+v", first)
	}
	mustTopic[struct{}](guest, team, bus.CallTopicJoin, bus.TopicJoin{Topic: "#plans"})
	waitTopic(guest, team, "plans", "to have its key on the guest's machine", hasKey)
	sent := alice.Send("#plans", there)
	got := bob.WaitMessage(there)
	if got.To != "#plans" || got.Topic != "plans" || got.TopicID != made.ID || got.FromName != "alice" || got.ClientMessageID != sent.ClientMessageID {
		t.Errorf("%+v", got)
	}
	guest.Do(bus.OpInboxSeen, bus.MessageIDs{IDs: []string{got.ID}}, nil)
	var answer bus.SendReply
	if err := testenv.Try(bob.Client, bus.SendSubject(team, bob.Info.ID, bus.SendTopic), bus.SendRequest{To: "#" + made.ID, Body: back, ReplyTo: got.ID}, &answer); err != nil {
		t.Fatal(err)
	}
	if reply := alice.WaitMessage(back); reply.ReplyTo != got.BrokerMessageID {
		t.Errorf("%+v", reply)
	}
	if want := []string{before, there, back}; strings.Join(texts(guest, team, "plans"), "|") != strings.Join(want, "|") {
		t.Errorf("the guest reads %q", texts(guest, team, "plans"))
	}
	found := mustTopic[bus.TopicFound](guest, team, bus.CallTopicSearch, bus.TopicSearch{Topic: "plans", Query: "SEALED plan"})
	if len(found.Messages) != 1 || *found.Messages[0].Message != there || found.Searched != 3 {
		t.Errorf("%+v", found)
	}

	guest.Stop()
	host.WaitState(team, alice.Send("#plans", away).ClientMessageID, bus.StateSent)
	guest.Start()
	testenv.Resume(guest, bob).WaitMessage(away)
	if r := host.Send(team, bus.SendRequest{To: "#general", Body: open}); r.BodyVersion != wire.BodyPlain || !strings.Contains(r.Warning, "no key") {
		t.Errorf("%+v", r)
	}
	testenv.Resume(guest, bob).WaitMessage(open)

	host.Stop()
	guest.Stop()
	var store strings.Builder
	filesBelow(t, filepath.Join(host.Dir(), "jetstream", "BROKER"), func(path string, info os.FileInfo) {
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			store.Write(b)
		}
	})
	places := map[string]string{
		"the broker's store": store.String(), "the frames": strings.Join(rec.all(), "\n"), "the broker's log": host.Log.String(), "the guest's log": guest.Log.String(),
	}
	for where, content := range places {
		for _, text := range []string{before, there, back, away} {
			if holdsText(content, text) {
				t.Errorf("%s hold %q", where, text)
			}
		}
	}
	for _, where := range []string{"the broker's store", "the frames"} {
		if !holdsText(places[where], open) {
			t.Errorf("the search does not find a post in clear in %s: it proves nothing", where)
		}
	}
}

// holdsText looks for the ways in which a text could stand in a file or frame.
func holdsText(content, text string) bool {
	for _, form := range []string{text, base64Core(text, 0), base64Core(text, 1), base64Core(text, 2)} {
		if strings.Contains(content, form) {
			return true
		}
	}
	return false
}

func TestWhoLeftATopicHasNoKeyToWhatFollows(t *testing.T) {
	host, guest, third := testenv.NewMachine(t), testenv.NewMachine(t), testenv.NewMachine(t)
	team := host.Create("team")
	guest.Join(host.Share(team), "guest")
	third.Join(host.Share(team), "third")
	mustTopic[bus.TopicCreated](host, team, bus.CallTopicCreate, bus.TopicCreate{Name: "plans"})
	for _, m := range []*testenv.Machine{guest, third} {
		m.WaitLink(team)
		mustTopic[struct{}](m, team, bus.CallTopicJoin, bus.TopicJoin{Topic: "plans"})
		waitTopic(m, team, "plans", "to have its key", hasKey)
	}
	alice, bob, carol := host.Session(team, "alice"), guest.Session(team, "bob"), third.Session(team, "carol")
	alice.Send("#plans", "for all three")
	bob.WaitMessage("for all three")
	carol.WaitMessage("for all three")

	mustTopic[struct{}](guest, team, bus.CallTopicLeave, bus.TopicLeave{Topic: "plans"})
	waitTopic(host, team, "plans", "to have a new key", func(t wire.Topic) bool { return t.Generation == 2 && !t.RotationDue && t.HasKey })
	waitTopic(third, team, "plans", "to have a new key for the third", func(t wire.Topic) bool { return t.Generation == 2 && t.HasKey })
	alice.Send("#plans", "for two of us")
	carol.WaitMessage("for two of us")
	if got := texts(third, team, "plans"); strings.Join(got, "|") != "for all three|for two of us" {
		t.Errorf("the third reads %q", got)
	}
	for _, op := range []string{bus.CallTopicHistory, bus.CallTopicSearch} {
		if _, err := topicCall[bus.TopicPage](guest, team, op, map[string]any{"topic": "plans", "query": "two"}); testenv.Refusal(err) != "broker_refused" {
			t.Errorf("%s by who left: %v", op, err)
		}
	}
	if _, err := topicCall[wire.TopicKey](guest, team, wire.TypeTopicKey, map[string]any{"topic": "plans"}); err == nil {
		t.Error("who left was given a key")
	}
	if _, err := guest.TrySend(team, bus.SendRequest{To: "#plans", Body: "hello?"}); testenv.Refusal(err) != "not_in_topic" {
		t.Errorf("%v", err)
	}
	t.Run("back again it reads what is new, and not what was said meanwhile", func(t *testing.T) {
		mustTopic[struct{}](guest, team, bus.CallTopicJoin, bus.TopicJoin{Topic: "plans"})
		waitTopic(guest, team, "plans", "to have its key again", hasKey)
		alice.Send("#plans", "welcome back")
		bob.WaitMessage("welcome back")
		for _, it := range bob.Inbox() {
			if it.Body == "for two of us" {
				t.Errorf("%+v", it)
			}
		}
	})
}

func TestAPostThatComesBeforeItsKeyIsOpenedLater(t *testing.T) {
	host, guest, third := testenv.NewMachine(t), testenv.NewMachine(t), testenv.NewMachine(t)
	team := host.Create("team")
	guest.Join(host.Share(team), "guest")
	third.Join(host.Share(team), "third")
	guest.WaitLink(team)
	third.WaitLink(team)
	mustTopic[bus.TopicCreated](guest, team, bus.CallTopicCreate, bus.TopicCreate{Name: "plans"})
	// Nobody who has the key is there when the third joins, and a post of before waits for it in its mailbox.
	guest.Stop()
	mustTopic[struct{}](third, team, bus.CallTopicJoin, bus.TopicJoin{Topic: "plans"})
	carol := third.Session(team, "carol")
	waiting := third.Send(team, bus.SendRequest{To: "#plans", Body: "from who has no key yet"})
	third.Stop()
	guest.Start()
	guest.WaitLink(team)
	guest.Send(team, bus.SendRequest{To: "#plans", Body: "sealed before carol came"})
	third.Start()
	carol = testenv.Resume(third, carol)
	it := carol.WaitMessage("sealed before carol came")
	if it.State == bus.StateUndecryptable || it.Seen {
		t.Errorf("%+v", it)
	}
	third.WaitState(team, waiting.ClientMessageID, bus.StateDelivered)
	if r, err := host.TrySend(team, bus.SendRequest{To: "#plans", Body: "not a member"}); testenv.Refusal(err) != "not_in_topic" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := host.TrySend(team, bus.SendRequest{To: "#nowhere", Body: "x"}); testenv.Refusal(err) != "topic_not_found" {
		t.Errorf("%v", err)
	}
	t.Run("a post written while the broker is away finds its topic later, or says why not", func(t *testing.T) {
		third.Stop()
		host.Stop()
		third.Start()
		good := third.Send(team, bus.SendRequest{To: "#plans", Body: "written in the dark"})
		bad := third.Send(team, bus.SendRequest{To: "#nowhere", Body: "written in the dark"})
		host.Start()
		third.WaitState(team, good.ClientMessageID, bus.StateDelivered)
		if item := third.WaitState(team, bad.ClientMessageID, bus.StateFailed); !strings.Contains(item.LastError, "no such topic") {
			t.Errorf("%+v", item)
		}
	})
}
