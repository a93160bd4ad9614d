package testenv_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"claudemesh/bus"
	"claudemesh/testenv"
)

// sseEvent is one event as a client of the stream sees it.
type sseEvent struct {
	id, kind string
	data     map[string]any
}

// sseStream reads an event stream until the test cancels it.
type sseStream struct {
	events chan sseEvent
	ended  chan struct{}
	place  string // the id that came before any event
	cancel context.CancelFunc
}

// stream opens the event stream and returns once the server has placed it.
func (d *httpDoor) stream(last string) *sseStream {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	var header []string
	if last != "" {
		header = []string{"Last-Event-ID", last}
	}
	res := d.open(ctx, "GET", "/v1/events", "", header...)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		cancel()
		d.t.Fatalf("events: %s %s", res.Status, res.Header.Get("Content-Type"))
	}
	s := &sseStream{events: make(chan sseEvent, 1000), ended: make(chan struct{}), cancel: cancel}
	placed := make(chan struct{})
	go func() {
		defer close(s.ended)
		defer res.Body.Close()
		var e sseEvent
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "id":
				e.id = value
			case "event":
				e.kind = value
			case "data":
				_ = json.Unmarshal([]byte(value), &e.data)
			case "":
				if e.id != "" && e.kind == "" && s.place == "" {
					s.place = e.id
					close(placed)
				}
				if e.kind != "" {
					s.events <- e
				}
				e = sseEvent{}
			}
		}
	}()
	d.t.Cleanup(func() {
		cancel()
		<-s.ended
	})
	select {
	case <-placed:
	case <-s.ended:
		d.t.Fatal("the stream ended before it began")
	}
	return s
}

// next waits for the next event that ok likes and returns it; the others are skipped.
func (s *sseStream) next(t testing.TB, what string, ok func(sseEvent) bool) sseEvent {
	t.Helper()
	var found sseEvent
	testenv.Wait(t, what, nil, func() bool {
		for {
			select {
			case e := <-s.events:
				if ok(e) {
					found = e
					return true
				}
			default:
				return false
			}
		}
	})
	return found
}

func isMessage(body string) func(sseEvent) bool {
	return func(e sseEvent) bool { return e.kind == "message" && e.data["body"] == body }
}

func TestTheEventStreamTellsWhatHappens(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	alice, bob, carol := m.Session(team, "alice"), m.Session(team, "bob", "crew"), m.Session(team, "carol", "crew")
	for _, name := range []string{"alice", "bob", "carol"} {
		m.WaitPeer(team, name)
	}
	user, his, hers := socketDoor(m, "").stream(""), tcpDoor(m, sessionToken(t, bob)).stream(""), tcpDoor(m, sessionToken(t, carol)).stream("")
	alice.Send("bob", "for bob only")
	alice.Send("@crew", "for the crew")
	alice.Send("carol", "the last word")

	// A message to one key and one to a group come by different links: in any order.
	got, group := sseEvent{}, false
	his.next(t, "bob's two messages", func(e sseEvent) bool {
		if isMessage("for bob only")(e) {
			got = e
		}
		group = group || isMessage("for the crew")(e)
		return group && got.kind != ""
	})
	for field, want := range map[string]any{"mesh": team, "sender_name": "alice", "from_name": "alice", "sender_pubkey": alice.Info.Pubkey, "priority": "next", "topic": ""} {
		if got.data[field] != want {
			t.Errorf("%s is %v, want %v", field, got.data[field], want)
		}
	}
	if got.data["ts"] == nil || got.data["created_at"] == nil || got.data["client_message_id"] == nil {
		t.Errorf("a field is missing: %v", got.data)
	}

	// Carol's stream has what is hers, and the user's everything, once.
	for _, r := range []struct {
		who    string
		stream *sseStream
		want   []string
	}{{"carol", hers, []string{"for the crew", "the last word"}}, {"the user", user, []string{"for bob only", "for the crew", "the last word"}}} {
		var seen []string
		r.stream.next(t, r.who+"'s messages", func(e sseEvent) bool {
			if e.kind == "message" {
				seen = append(seen, e.data["body"].(string))
			}
			return len(seen) == len(r.want)
		})
		if slices.Sort(seen); !slices.Equal(seen, r.want) {
			t.Errorf("%s saw %q", r.who, seen)
		}
	}

	t.Run("a receipt is an event of its sender alone", func(t *testing.T) {
		mine := tcpDoor(m, sessionToken(t, alice)).stream("")
		sent := alice.Send("bob", "with a receipt")
		mine.next(t, "the receipt", func(e sseEvent) bool {
			return e.kind == "receipt" && e.data["client_message_id"] == sent.ClientMessageID && e.data["state"] == bus.StateDelivered
		})
		his.next(t, "the message", func(e sseEvent) bool {
			if e.kind == "receipt" {
				t.Errorf("bob hears of alice's receipt: %v", e.data)
			}
			return isMessage("with a receipt")(e)
		})
	})
	t.Run("who comes and goes is an event", func(t *testing.T) {
		dave := m.Session(team, "dave")
		his.next(t, "dave", func(e sseEvent) bool {
			return e.kind == "peer_join" && e.data["mesh"] == team && e.data["event"] == "peer_joined" && e.data["pubkey"] == dave.Info.Pubkey
		})
		m.Do(bus.OpSessionEnd, bus.SessionID{ID: dave.Info.ID}, nil)
		his.next(t, "dave's end", func(e sseEvent) bool { return e.kind == "peer_leave" && e.data["pubkey"] == dave.Info.Pubkey })
	})
	t.Run("a stream ends with its session", func(t *testing.T) {
		m.Do(bus.OpSessionEnd, bus.SessionID{ID: carol.Info.ID}, nil)
		testenv.Wait(t, "the end of carol's stream", hers.ended, func() bool {
			select {
			case <-hers.ended:
				return true
			default:
				return false
			}
		})
	})
	t.Run("the daemon stops with streams open", func(t *testing.T) {
		m.Stop()
		<-his.ended
		<-user.ended
	})
}

func TestTheEventStreamGoesOnWhereItsClientWas(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	alice, bob := m.Session(team, "alice", "crew"), m.Session(team, "bob", "crew")
	m.WaitPeer(team, "alice")
	m.WaitPeer(team, "bob")
	for name, door := range map[string]func() *httpDoor{
		"a session": func() *httpDoor { return tcpDoor(m, sessionToken(t, bob)) },
		"the user":  func() *httpDoor { return socketDoor(m, "") },
	} {
		t.Run(name, func(t *testing.T) {
			first := door().stream("")
			place := first.place
			for i := range 5 {
				alice.Send("bob", fmt.Sprintf("%s %d", name, i))
			}
			seen := first.next(t, "the second message", isMessage(name+" 1"))
			first.cancel()
			<-first.ended
			alice.Send("@crew", name+" away")
			bob.WaitMessage(name + " away")

			for from, want := range map[string][]string{
				seen.id: {name + " 2", name + " 3", name + " 4", name + " away"},
				place:   {name + " 0", name + " 1", name + " 2", name + " 3", name + " 4", name + " away"},
			} {
				again := door().stream(from)
				var got []string
				again.next(t, "what was missed", func(e sseEvent) bool {
					if body, _ := e.data["body"].(string); e.kind == "message" && strings.HasPrefix(body, name) && body != name+" then" {
						got = append(got, body)
					}
					return len(got) == len(want)
				})
				slices.Sort(got) // those to one key and the group's come by different links
				alice.Send("bob", name+" then")
				again.next(t, "what comes then", func(e sseEvent) bool {
					if body, _ := e.data["body"].(string); e.kind == "message" && slices.Contains(got, body) {
						t.Errorf("%q is shown again", body)
					}
					return isMessage(name + " then")(e)
				})
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("from %s: %q, want %q", from, got, want)
				}
				again.cancel()
				<-again.ended
			}
		})
	}
	t.Run("over a restart of the daemon", func(t *testing.T) {
		first := socketDoor(m, "").stream("")
		alice.Send("bob", "before the restart")
		seen := first.next(t, "the message", isMessage("before the restart"))
		m.Stop()
		m.Start()
		m.WaitLink(team)
		m.WaitPeer(team, "bob")
		again := testenv.Resume(m, alice)
		again.Send("bob", "after the restart")
		socketDoor(m, "").stream(seen.id).next(t, "what came after it", func(e sseEvent) bool {
			if isMessage("before the restart")(e) {
				t.Error("it is shown again")
			}
			return isMessage("after the restart")(e)
		})
	})
	t.Run("a place that the streams never had is told", func(t *testing.T) {
		s := socketDoor(m, "").stream("999999-999999")
		s.next(t, "the gap", func(e sseEvent) bool { return e.kind == "gap" })
	})
}
