package testenv_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv"
)

func TestTheLimitOfAMessage(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	bob := m.Session(team, "bob", "dev")
	m.WaitPeer(team, "bob")

	t.Run("exactly at the limit it is delivered, whatever the characters and the target", func(t *testing.T) {
		for n, text := range map[string]string{
			"plain": strings.Repeat("x", mesh.MaxBody), "escaped sixfold": strings.Repeat("\x01", mesh.MaxBody), "two bytes each": strings.Repeat("é", mesh.MaxBody/2),
			"quotes": strings.Repeat(`"`, mesh.MaxBody), "line ends": strings.Repeat("\n", mesh.MaxBody),
		} {
			for _, to := range []string{"bob", "@dev", "*"} {
				if r, err := m.TrySend(team, bus.SendRequest{To: to, Body: text}); err != nil || r.Code != 202 {
					t.Errorf("%s to %s: %+v, %v", n, to, r, err)
				}
			}
		}
		// Fifteen of them are more than one reply of the bus can hold: what is listed is a part, the newest, and the rest can still be had.
		seen := map[string]int{}
		bob.WaitInbox("all of them", func([]bus.InboxItem) bool {
			var l bus.InboxList
			bob.Do(bus.OpInboxPending, nil, &l)
			var ids []string
			for _, it := range l.Items {
				ids = append(ids, it.ID)
				seen[it.Body]++
			}
			if len(ids) > 0 {
				bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: ids, Via: bus.ViaChannel}, nil)
			}
			n := 0
			for _, c := range seen {
				n += c
			}
			return n == 15
		})
		for text, n := range seen {
			if n != 3 || len(text) != mesh.MaxBody/2*2 {
				t.Errorf("a text of %d bytes came %d times", len(text), n)
			}
		}
		if items := bob.Inbox(); len(items) == 0 || len(items) > 15 {
			t.Errorf("%d messages are listed", len(items))
		}
	})
	t.Run("over it, it is refused with the limit, and its id stays free", func(t *testing.T) {
		for _, size := range []int{mesh.MaxBody + 1, 100_000, 200_000} {
			_, err := m.TrySend(team, bus.SendRequest{To: "bob", Body: strings.Repeat("x", size), ClientMessageID: "big"})
			f := refusal(t, err, 413, "payload_too_large")
			if f["limit"] != float64(mesh.MaxBody) || f["size"] != float64(size) {
				t.Errorf("%d bytes: %v", size, f)
			}
		}
		for _, size := range []int{600_000, 2 << 20} { // over the limits of a request and of the bus
			_, err := m.TrySend(team, bus.SendRequest{To: "bob", Body: strings.Repeat("x", size), ClientMessageID: "big"})
			if f := refusal(t, err, 413, "payload_too_large"); f["limit"] == nil {
				t.Errorf("%d bytes: %v", size, f)
			}
		}
		if r := m.Send(team, bus.SendRequest{To: "bob", Body: "small", ClientMessageID: "big"}); r.Duplicate {
			t.Errorf("%+v", r)
		}
		bob.WaitMessage("small")
	})
}

func TestBadRequests(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	m.Create("other")
	m.WaitLink(team)
	ok := bus.SendRequest{To: "*", Body: "x"}
	for name, c := range map[string]struct {
		edit   func(*bus.SendRequest)
		code   int
		reason string
	}{
		"NUL in the target":          {func(r *bus.SendRequest) { r.To = "bob\x00r1" }, 400, "bad_target"},
		"control in the target":      {func(r *bus.SendRequest) { r.To = "bob\x1b[2J" }, 400, "bad_target"},
		"line end in the target":     {func(r *bus.SendRequest) { r.To = "bob\nx" }, 400, "bad_target"},
		"no target":                  {func(r *bus.SendRequest) { r.To = "" }, 400, "bad_target"},
		"blank target":               {func(r *bus.SendRequest) { r.To = "   " }, 400, "bad_target"},
		"group without a name":       {func(r *bus.SendRequest) { r.To = "@" }, 400, "bad_target"},
		"a very long target":         {func(r *bus.SendRequest) { r.To = strings.Repeat("b", 300) }, 400, "bad_target"},
		"no text":                    {func(r *bus.SendRequest) { r.Body = "" }, 400, "empty_message"},
		"unknown priority":           {func(r *bus.SendRequest) { r.Priority = "urgent" }, 400, "bad_priority"},
		"a very long id":             {func(r *bus.SendRequest) { r.ClientMessageID = strings.Repeat("i", 257) }, 400, "bad_id"},
		"a very long reply id":       {func(r *bus.SendRequest) { r.ReplyTo = strings.Repeat("i", 257) }, 400, "bad_id"},
		"metadata that is no object": {func(r *bus.SendRequest) { r.Meta = json.RawMessage(`[1]`) }, 400, "bad_request"},
		"a name nobody has":          {func(r *bus.SendRequest) { r.To = "nobody" }, 404, "peer_not_found"},
		"a prefix nobody has":        {func(r *bus.SendRequest) { r.To = strings.Repeat("0", 20) }, 404, "peer_not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			req := ok
			c.edit(&req)
			_, err := m.TrySend(team, req)
			refusal(t, err, c.code, c.reason)
		})
	}
	t.Run("a kind that the subject does not say", func(t *testing.T) {
		refusal(t, testenv.Try(m.User(), bus.SendSubject(team, bus.User, "dm"), bus.SendRequest{To: "*", Body: "x"}, nil), 400, "bad_target")
	})
	t.Run("an unknown mesh is refused with the list of the joined ones", func(t *testing.T) {
		for what, err := range map[string]error{
			"send": second(m.TrySend("none", ok)), "call": testenv.Try(m.User(), bus.CallSubject("none", bus.User, bus.CallListPeers), nil, nil),
			"inbox":   testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpInboxList), bus.InboxQuery{Mesh: "none"}, nil),
			"share":   testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpMeshShare), bus.MeshShare{Mesh: "none"}, nil),
			"session": testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpSessionStart), bus.SessionStart{Mesh: "none", Name: "x", PID: 1}, nil),
		} {
			if f := refusal(t, err, 404, "mesh_not_joined"); fmt.Sprint(f["joined"]) != "[other team]" {
				t.Errorf("%s: %v", what, f)
			}
		}
	})
	t.Run("what is not the JSON that was asked for", func(t *testing.T) {
		for _, body := range []string{
			`{`, `[]`, `"x"`, `7`, `nul`, `{"to":7}`, `{"to":"*","body":"x"} {}`, `{"to":"*","body":"x"}x`, "\xff\xfe", `{"to":"*","body":["x"]}`, strings.Repeat("[", 20000),
			strings.Repeat(`{"a":`, 20000), "\x00",
		} {
			msg, err := m.User().Conn().Request(bus.SendSubject(team, bus.User, "all"), []byte(body), testenv.Patience)
			if err != nil {
				t.Fatalf("%.30q: %v", body, err)
			}
			if got := msg.Header.Get("Nats-Service-Error-Code"); got != "400" {
				t.Errorf("%.30q: code %q, %s", body, got, msg.Data)
			}
		}
	})
	var out bus.OutboxList
	m.Do(bus.OpOutboxList, bus.OutboxQuery{}, &out)
	if len(out.Items) != 0 {
		t.Errorf("%d refused messages were stored: %+v", len(out.Items), out.Items[0])
	}
}

func TestInvitesThatAreNoGood(t *testing.T) {
	clock := clockwork.NewFakeClockAt(time.Now())
	host := testenv.NewMachine(t, testenv.WithClock(clock))
	team := host.Create("team")
	invite := host.Share(team)
	token := strings.TrimPrefix(invite, "ic://join/")
	join := func(m *testenv.Machine, invite string) error {
		return testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpMeshJoin), bus.MeshJoin{Invite: invite}, nil)
	}
	joined := func(t *testing.T, m *testenv.Machine, want ...string) {
		t.Helper()
		var have []string
		for _, ms := range status(m).Meshes {
			have = append(have, ms.Mesh)
		}
		if !slices.Equal(have, want) {
			t.Errorf("joined meshes are %q, want %q", have, want)
		}
	}
	guest := testenv.NewMachine(t)
	t.Run("malformed ones", func(t *testing.T) {
		for _, bad := range []string{
			"", "ic://join/", "ic://join/x", "not an invite at all", token[:len(token)/2], "ic://join/" + token[1:], "https://example.com/", "ic://join/" + strings.Repeat("A", 9000),
			"ic://join/\x00", "ic://join/e30", "{}", "../../etc/passwd", swapped(token, 40),
		} {
			refusal(t, join(guest, bad), 400, "bad_invite")
		}
		joined(t, guest)
	})
	t.Run("one whose broker is not there", func(t *testing.T) {
		owner, err := memberOf(host, team).Identity()
		if err != nil {
			t.Fatal(err)
		}
		in, _, err := mesh.ParseInvite(invite)
		if err != nil {
			t.Fatal(err)
		}
		in.BrokerURL = "ws://127.0.0.1:1/ws"
		_, gone, err := mesh.NewInvite(owner, in)
		if err != nil {
			t.Fatal(err)
		}
		refusal(t, join(guest, gone), 503, "broker_unreachable")
		joined(t, guest)
	})
	t.Run("one that a stranger signed", func(t *testing.T) {
		in, _, err := mesh.ParseInvite(invite)
		if err != nil {
			t.Fatal(err)
		}
		other := testenv.NewMachine(t)
		thief, err := memberOf(other, other.Create("mine")).Identity()
		if err != nil {
			t.Fatal(err)
		}
		_, forged, err := mesh.NewInvite(thief, in)
		if err != nil {
			t.Fatal(err)
		}
		refusal(t, join(guest, forged), 403, "join_refused")
		joined(t, guest)
	})
	t.Run("one for a mesh that is joined", func(t *testing.T) {
		refusal(t, join(host, invite), 409, "mesh_exists")
		joined(t, host, team)
		guest.Join(invite, "guest")
		refusal(t, join(guest, invite), 409, "mesh_exists")
		joined(t, guest, team)
	})
	t.Run("one that is used up", func(t *testing.T) {
		var once bus.MeshInvite
		host.Do(bus.OpMeshShare, bus.MeshShare{Mesh: team, MaxUses: 1}, &once)
		testenv.NewMachine(t).Join(once.Invite, "first")
		late := testenv.NewMachine(t)
		if f := refusal(t, join(late, once.Invite), 403, "join_refused"); f["broker_code"] != "invite_exhausted" {
			t.Errorf("%v", f)
		}
		joined(t, late)
	})
	t.Run("one that has expired", func(t *testing.T) {
		var short bus.MeshInvite
		host.Do(bus.OpMeshShare, bus.MeshShare{Mesh: team, MaxUses: 9, ExpiresIn: 3600}, &short)
		sleeper := testenv.NewMachine(t, testenv.WithClock(clockwork.NewFakeClockAt(clock.Now().Add(time.Hour+time.Second))))
		refusal(t, join(sleeper, short.Invite), 410, "invite_expired")
		joined(t, sleeper)
		// A daemon whose clock is behind finds nothing wrong with it; the broker does.
		clock.Advance(time.Hour + time.Second)
		behind := testenv.NewMachine(t)
		if f := refusal(t, join(behind, short.Invite), 403, "join_refused"); f["broker_code"] != "invite_expired" {
			t.Errorf("%v", f)
		}
		joined(t, behind)
	})
	t.Run("what was refused left no key behind", func(t *testing.T) {
		c, err := mesh.LoadConfig(filepath.Join(guest.Home, ".claudemesh"))
		if err != nil || len(c.Meshes) != 1 {
			t.Errorf("%v, %v", c, err)
		}
	})
}

// swapped changes one character in the middle of a token, so that it still decodes.
func swapped(token string, at int) string {
	c := byte('A')
	if token[at] == c {
		c = 'B'
	}
	return token[:at] + string(c) + token[at+1:]
}
