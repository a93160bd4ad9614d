package testenv_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv"
	"claudemesh/wire"
)

func TestASessionReachesNothingOfAnother(t *testing.T) {
	m := testenv.NewMachine(t)
	team, other := m.Create("team"), m.Create("other")
	alice, bob, mallory := m.Session(team, "alice"), m.Session(team, "bob"), m.Session(team, "mallory")
	for _, name := range []string{"alice", "bob", "mallory"} {
		m.WaitPeer(team, name)
	}
	sent := alice.Send("bob", "for bob only")
	got := bob.WaitMessage("for bob only")
	m.WaitState(team, sent.ClientMessageID, bus.StateDelivered)

	t.Run("it cannot subscribe to what is not its own", func(t *testing.T) {
		for _, subject := range []string{
			bus.SessionMsgSubject(team, bob.Info.ID), "mesh." + team + ".msg.session.*", bus.AnyMsgSubject(team), bus.AnyMsgSubject("*"), bus.AllMsgSubject(other),
			bus.MemberMsgSubject(other), bus.GroupMsgSubject(team, "dev"), bus.EventSubject(other, ">"), bus.ReceiptSubject(team, alice.Info.ID, "*"),
			bus.ReceiptSubject(team, bus.User, "*"), "mesh.>", ">", "*.>", "mesh." + team + ".*.send.*", "mesh." + team + ".user.>", "daemon.>", "daemon.user.*",
			bus.InboxPrefix(bob.Info.ID) + ".>", bus.InboxPrefix(bus.User) + ".>", "_INBOX.>", "_R_.>", "$JS.>", "$JS.EVENT.>", "$SYS.>", "$SRV.>",
		} {
			_, err := mallory.Client.Subscribe(subject, func(*nats.Msg) {})
			denied(t, subject, err)
		}
	})
	t.Run("it cannot speak as another, as the user or as the server", func(t *testing.T) {
		req := bus.SendRequest{To: "bob", Body: "forged"}
		for _, subject := range []string{
			bus.SendSubject(team, bob.Info.ID, "dm"), bus.SendSubject(team, bus.User, "dm"), bus.CallSubject(team, bob.Info.ID, bus.CallListPeers),
			bus.CallSubject(team, bus.User, bus.CallListPeers), bus.DaemonSubject(bob.Info.ID, bus.OpInboxList), bus.DaemonSubject(bus.User, bus.OpInboxList),
			bus.SessionMsgSubject(team, bob.Info.ID), bus.AllMsgSubject(team), bus.MemberMsgSubject(team), bus.EventSubject(team, "system"),
			bus.ReceiptSubject(team, alice.Info.ID, sent.ClientMessageID), bus.InboxPrefix(bob.Info.ID) + ".x", bus.InboxPrefix(bus.User) + ".x",
			"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.MSG.GET.MESSAGES", "$JS.API.DIRECT.GET.MESSAGES", "$JS.API.STREAM.DELETE.MESSAGES",
			"$JS.ACK.x", "$SRV.PING", "$SRV.INFO", "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "_R_.x", "x",
		} {
			denied(t, subject, testenv.Try(mallory.Client, subject, req, nil))
		}
	})
	t.Run("it reads nothing of another's inbox and outbox", func(t *testing.T) {
		for _, q := range []bus.InboxQuery{{}, {Mesh: team}, {Unread: true, Limit: 1000}} {
			var l bus.InboxList
			mallory.Do(bus.OpInboxList, q, &l)
			if len(l.Items) != 0 || l.Unread != 0 {
				t.Errorf("%+v lists %+v", q, l)
			}
		}
		var pending bus.InboxList
		mallory.Do(bus.OpInboxPending, nil, &pending)
		if len(pending.Items) != 0 {
			t.Errorf("pending: %+v", pending.Items)
		}
		var out bus.OutboxList
		mallory.Do(bus.OpOutboxList, bus.OutboxQuery{}, &out)
		if len(out.Items) != 0 {
			t.Errorf("outbox: %+v", out.Items)
		}
		row := m.WaitState(team, sent.ClientMessageID, bus.StateDelivered)
		for _, q := range []bus.OutboxGet{{ID: sent.ClientMessageID}, {ID: sent.ClientMessageID, Mesh: team}, {ID: row.ID}} {
			refusal(t, testenv.Try(mallory.Client, bus.DaemonSubject(mallory.Info.ID, bus.OpOutboxGet), q, nil), 404, "not_found")
		}
		var sessions bus.SessionList
		mallory.Do(bus.OpSessionList, nil, &sessions)
		if len(sessions.Sessions) != 1 || sessions.Sessions[0].ID != mallory.Info.ID {
			t.Errorf("sessions: %+v", sessions.Sessions)
		}
	})
	t.Run("its marks on another's messages have no effect", func(t *testing.T) {
		mallory.Do(bus.OpInboxSeen, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaFollow}, nil)
		mallory.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaInbox}, nil)
		var l bus.InboxList
		bob.Do(bus.OpInboxList, bus.InboxQuery{Unread: true}, &l)
		if len(l.Items) != 1 || l.Items[0].Seen {
			t.Errorf("bob's unread messages: %+v", l.Items)
		}
		bob.Do(bus.OpInboxPending, nil, &l)
		if len(l.Items) != 1 || l.Items[0].Body != "for bob only" {
			t.Errorf("bob's pending messages: %+v", l.Items)
		}
		bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaChannel}, nil)
		item := m.WaitState(team, sent.ClientMessageID, bus.StateSurfaced)
		for _, r := range item.Receipts {
			if r.State == bus.StateSurfaced && (r.Via != bus.ViaChannel || r.By != "bob") {
				t.Errorf("the sender was told %+v", r)
			}
		}
	})
}

func TestNoReplyCanBeAimedAtAnother(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	bob, mallory := m.Session(team, "bob"), m.Session(team, "mallory")
	m.WaitPeer(team, "bob")
	m.WaitPeer(team, "mallory")
	atBob, atBobsInbox, atUser := listen(t, bob.Client, bus.SessionMsgSubject(team, bob.Info.ID)), listen(t, bob.Client, bus.InboxPrefix(bob.Info.ID)+".>"), listen(t, m.User(), bus.AnyMsgSubject("*"))
	nc := rawConn(m, tokenIn(t, mallory.Info.TokenFile), bus.InboxPrefix(mallory.Info.ID))
	forged := encode(t, bus.SendRequest{To: "bob", Body: "asked with a forged reply"})
	for _, reply := range []string{
		bus.InboxPrefix(bob.Info.ID) + ".x", bus.InboxPrefix(bus.User) + ".x", bus.SessionMsgSubject(team, bob.Info.ID), bus.AllMsgSubject(team),
		bus.EventSubject(team, "system"), bus.DaemonSubject(bus.User, bus.OpShutdown), bus.InboxPrefix(mallory.Info.ID), bus.InboxPrefix(mallory.Info.ID+"x") + ".x",
	} {
		for subject, body := range map[string][]byte{
			bus.SendSubject(team, mallory.Info.ID, "dm"): forged, bus.CallSubject(team, mallory.Info.ID, bus.CallListPeers): nil,
			bus.DaemonSubject(mallory.Info.ID, bus.OpVersion): nil, bus.DaemonSubject(mallory.Info.ID, bus.OpSessionMe): nil,
		} {
			if err := nc.PublishRequest(subject, reply, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Asked honestly on every one of these subjects, after them: what was to come of the forged ones has come by then.
	for _, op := range []string{bus.OpVersion, bus.OpSessionMe} {
		if _, err := nc.Request(bus.DaemonSubject(mallory.Info.ID, op), nil, testenv.Patience); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nc.Request(bus.SendSubject(team, mallory.Info.ID, "dm"), encode(t, bus.SendRequest{To: "bob", Body: "an honest one"}), testenv.Patience); err != nil {
		t.Fatal(err)
	}
	for where, h := range map[string]*heard{"bob's subject": atBob, "the user": atUser} {
		if got := h.until(t, "an honest one"); len(got) != 0 {
			t.Errorf("%s heard %d messages, the first on %s: %s", where, len(got), got[0].Subject, got[0].Data)
		}
	}
	if items := bob.Inbox(); len(items) != 1 {
		t.Errorf("bob has %+v, want only the honest message", items)
	}
	select {
	case msg := <-atBobsInbox.ch:
		if !strings.Contains(string(msg.Data), `"items"`) { // his own request of this moment
			t.Errorf("bob's inbox heard %s", msg.Data)
		}
	default:
	}
	if s := status(m); !s.Running {
		t.Error("the daemon was shut down")
	}
}

func TestTokens(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	alice := m.Session(team, "alice")
	token := tokenIn(t, alice.Info.TokenFile)
	connect := func(token, actor string) error {
		ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
		defer cancel()
		c, err := bus.Connect(ctx, bus.ClientConfig{Dir: m.Dir(), Token: token, Actor: actor, Name: "test"})
		if err == nil {
			c.Close()
		}
		return err
	}
	t.Run("unknown ones are refused at both doors", func(t *testing.T) {
		for name, bad := range map[string]string{
			"random": strings.Repeat("5a", 32), "none": "", "the hash of a good one": hashHex(token), "half of a good one": token[:32], "upper case": strings.ToUpper(token),
			"more than a good one": token + "0", "the member's public key": m.MemberKey(team),
		} {
			if err := connect(bad, bus.User); !errors.Is(err, bus.ErrUnauthorized) {
				t.Errorf("%s at the socket: %v", name, err)
			}
			if _, err := nats.Connect(status(m).TCPURL, nats.Token(bad)); !errors.Is(err, nats.ErrAuthorization) {
				t.Errorf("%s at the TCP door: %v", name, err)
			}
		}
	})
	t.Run("a session's token is good for that session only", func(t *testing.T) {
		c, err := bus.Connect(t.Context(), bus.ClientConfig{Dir: m.Dir(), Token: token, Actor: bus.User})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		denied(t, "status as the user", testenv.Try(c, bus.DaemonSubject(bus.User, bus.OpStatus), nil, nil))
	})
	t.Run("the end of the session cuts its connections and refuses new ones", func(t *testing.T) {
		live := rawConn(m, token, bus.InboxPrefix(alice.Info.ID))
		m.Do(bus.OpSessionEnd, bus.SessionID{ID: alice.Info.ID}, nil)
		live.cut()
		if err := connect(token, alice.Info.ID); !errors.Is(err, bus.ErrUnauthorized) {
			t.Errorf("reconnect: %v", err)
		}
		if _, err := os.Stat(alice.Info.TokenFile); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("token file: %v", err)
		}
		if err := testenv.Try(alice.Client, bus.DaemonSubject(alice.Info.ID, bus.OpSessionMe), nil, nil); err == nil {
			t.Error("the old connection still works")
		}
	})
	t.Run("a session that registers again gets a new one, and the old one is dead", func(t *testing.T) {
		first := register(m, bus.SessionStart{ID: "fixed", Mesh: team, Name: "fixed"})
		old := tokenIn(t, first.Info.TokenFile)
		live := rawConn(m, old, bus.InboxPrefix("fixed"))
		second := register(m, bus.SessionStart{ID: "fixed", Mesh: team, Name: "fixed"})
		live.cut()
		if err := connect(old, "fixed"); !errors.Is(err, bus.ErrUnauthorized) {
			t.Errorf("the old token: %v", err)
		}
		if err := connect(tokenIn(t, second.Info.TokenFile), "fixed"); err != nil {
			t.Errorf("the new token: %v", err)
		}
	})
	t.Run("tokens outlive a restart of the daemon, dead ones stay dead", func(t *testing.T) {
		carol := m.Session(team, "carol")
		m.Stop()
		m.Start()
		if err := connect(tokenIn(t, carol.Info.TokenFile), carol.Info.ID); err != nil {
			t.Errorf("a live session's: %v", err)
		}
		if err := connect(token, alice.Info.ID); !errors.Is(err, bus.ErrUnauthorized) {
			t.Errorf("an ended session's: %v", err)
		}
	})
}

func TestWhatASessionMayAsk(t *testing.T) {
	m := testenv.NewMachine(t)
	team, other := m.Create("team"), m.Create("other")
	m.WaitLink(team)
	m.WaitLink(other)
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")

	t.Run("what is the user's is refused to a session", func(t *testing.T) {
		for op, in := range map[string]any{
			bus.OpShutdown: nil, bus.OpMeshCreate: bus.MeshCreate{Name: "mine"}, bus.OpMeshJoin: bus.MeshJoin{Invite: "x"}, bus.OpMeshShare: bus.MeshShare{Mesh: team},
			bus.OpSessionEnd:    bus.SessionID{ID: bob.Info.ID}, // not one that it made
			bus.OpOutboxRequeue: bus.Requeue{ID: "x"}, bus.OpTap: bus.TapRequest{},
			bus.OpMeshRename: bus.MeshRename{Mesh: team, Slug: "mine"}, bus.OpMeshLeave: bus.MeshLeave{Mesh: team, Local: true}, bus.OpMeshDelete: bus.MeshDelete{Mesh: team},
			bus.OpInviteList: bus.InviteQuery{Mesh: team}, bus.OpInviteRevoke: bus.InviteQuery{Mesh: team, Invite: "x"},
		} {
			refusal(t, testenv.Try(bob.Client, bus.DaemonSubject(bob.Info.ID, op), in, nil), 403, "forbidden")
		}
		if s := status(m); len(s.Meshes) != 2 || s.Sessions != 1 {
			t.Errorf("status afterwards: %+v", s)
		}
	})
	t.Run("what decides about the mesh is no call either, which would go over the owner's connection", func(t *testing.T) {
		for _, op := range []string{wire.TypeInviteCreate, wire.TypeInviteList, wire.TypeInviteRevoke, wire.TypeMeshRename, wire.TypeMeshDelete, wire.TypeMeshLeave} {
			refusal(t, testenv.Try(bob.Client, bus.CallSubject(team, bob.Info.ID, op), map[string]any{"slug": team}, nil), 400, "bad_operation")
		}
		if s := status(m); len(s.Meshes) != 2 {
			t.Errorf("status afterwards: %+v", s)
		}
	})
	t.Run("a session of one mesh only does not reach another", func(t *testing.T) {
		bound := register(m, bus.SessionStart{Mesh: team, Name: "bound", OnlyMesh: true})
		denied(t, "send", testenv.Try(bound.Client, bus.SendSubject(other, bound.Info.ID, "all"), bus.SendRequest{To: "*", Body: "out"}, nil))
		denied(t, "list_peers", testenv.Try(bound.Client, bus.CallSubject(other, bound.Info.ID, bus.CallListPeers), nil, nil))
		_, err := bound.Client.Subscribe(bus.EventSubject(other, ">"), func(*nats.Msg) {})
		denied(t, "events", err)
		if _, err := trySend(bound, team, bus.SendRequest{To: "bob", Body: "within"}); err != nil {
			t.Errorf("in its own mesh: %v", err)
		}
		bob.WaitMessage("within")
		if _, err := trySend(bob, other, bus.SendRequest{To: "*", Body: "free"}); err != nil {
			t.Errorf("a session that is not bound: %v", err)
		}
	})
	t.Run("capabilities limit it", func(t *testing.T) {
		for name, c := range map[string]struct {
			caps               []string
			dm, all, setStatus bool
		}{
			"dm": {[]string{mesh.CapDM}, true, false, false}, "broadcast": {[]string{mesh.CapBroadcast}, false, true, false},
			"profile": {[]string{mesh.CapProfileWrite}, false, false, true}, "all-caps": {nil, true, true, true},
		} {
			s := register(m, bus.SessionStart{Mesh: team, Name: "limited-" + name, Caps: c.caps})
			check := func(what string, may bool, err error) {
				t.Helper()
				if errors.Is(err, bus.ErrDenied) == may {
					t.Errorf("%s: %s: %v", name, what, err)
				}
			}
			_, err := trySend(s, team, bus.SendRequest{To: "bob", Body: "limited " + name})
			check("dm", c.dm, err)
			_, err = trySend(s, team, bus.SendRequest{To: "*", Body: "limited"})
			check("broadcast", c.all, err)
			check("set_status", c.setStatus, testenv.Try(s.Client, bus.CallSubject(team, s.Info.ID, bus.CallSetStatus), map[string]string{"status": "idle"}, nil))
			check("list_peers", true, testenv.Try(s.Client, bus.CallSubject(team, s.Info.ID, bus.CallListPeers), nil, nil))
		}
	})
	t.Run("an unknown capability and an id that means something else register nothing", func(t *testing.T) {
		before := status(m).Sessions
		for _, req := range []bus.SessionStart{
			{Name: "x", Caps: []string{"everything"}},
			{Name: "x", ID: "msg"},
			{Name: "x", ID: "event"},
			{Name: "x", ID: "send"},
			{Name: "x", ID: bus.User},
			{Name: "x", ID: "tap"},
			{Name: "x", ID: "a.b"},
			{Name: "x", ID: "*"},
			{Name: "x", ID: "../../x"},
		} {
			req.Mesh, req.PID = team, os.Getpid()
			refusal(t, testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpSessionStart), req, nil), 400, "bad_session")
		}
		if n := status(m).Sessions; n != before {
			t.Errorf("%d sessions, before %d", n, before)
		}
	})
	t.Run("calls that open a connection or carry a message are none", func(t *testing.T) {
		for _, op := range []string{"hello", "session_hello", "send", "client_ack", "invite_create", "push", "ack", "Hello", "x-y"} {
			err := testenv.Try(bob.Client, bus.CallSubject(team, bob.Info.ID, op), map[string]string{"targetSpec": "*"}, nil)
			var e *bus.APIError
			if !errors.As(err, &e) || e.Code >= 500 {
				t.Errorf("%s: %v", op, err)
			}
		}
	})
}
