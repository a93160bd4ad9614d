package daemon

import (
	"slices"
	"strings"
	"testing"
	"time"

	"claudemesh/bus"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestOfThoseOfflineTheNewestOfEachNameCounts(t *testing.T) {
	m := still(t)
	key := func(c string) string { return strings.Repeat(c, 64) }
	at := func(h int) time.Time { return time.Date(2026, 1, 1, h, 0, 0, 0, time.UTC) }
	ann, ben := key("a"), key("b")
	must(t, m.d.session.UpsertPeers(t.Context(), "team", []session.Peer{
		{Key: key("1"), MemberKey: ann, Name: "worker", LastSeenAt: at(1)},
		{Key: key("2"), MemberKey: ann, Name: "Worker", LastSeenAt: at(3)},
		{Key: key("3"), MemberKey: ann, Name: "worker", LastSeenAt: at(2)},
		{Key: key("4"), MemberKey: ben, Name: "worker", LastSeenAt: at(1)},
		{Key: key("5"), MemberKey: ann, Name: "other", LastSeenAt: at(1)},
		{Key: ann, MemberKey: ann, Name: "ann", LastSeenAt: at(1)},
	}))
	must(t, m.d.session.UpsertPeers(t.Context(), "elsewhere", []session.Peer{{Key: key("6"), MemberKey: ann, Name: "worker", LastSeenAt: at(9)}}))
	m.roster.live = []wire.Peer{{Pubkey: key("7"), MemberPubkey: ben, DisplayName: "worker"}} // of a link that is not open any more
	all, err := m.roster.candidates(t.Context(), key("5"))
	must(t, err)
	var got []string
	for _, c := range all {
		if c.Online || c.Session != (c.Key != c.MemberKey) || c.Self != (c.Key == key("5")) {
			t.Errorf("%+v", c)
		}
		got = append(got, c.Key[:1])
	}
	slices.Sort(got)
	if want := []string{"2", "4", "5", "a"}; !slices.Equal(got, want) {
		t.Errorf("candidates are %q, want %q", got, want)
	}
}

func TestEventsKeepTheListFresh(t *testing.T) {
	r := still(t).roster
	keys := func() (out []string) {
		for _, p := range r.live {
			out = append(out, p.Pubkey+p.DisplayName)
		}
		return out
	}
	r.joined(wire.PeerEvent{Pubkey: "k1", Name: "bob"})
	r.joined(wire.PeerEvent{Pubkey: "k1", Name: "again"})
	r.joined(wire.PeerEvent{Pubkey: "k2", Name: "carol"})
	if got := keys(); !slices.Equal(got, []string{"k1bob", "k2carol"}) {
		t.Errorf("%q", got)
	}
	r.left("k3")
	r.left("k1")
	if got := keys(); !slices.Equal(got, []string{"k2carol"}) {
		t.Errorf("%q", got)
	}
}

func TestAnswersToATarget(t *testing.T) {
	d, m := running(t)
	keys := map[string]string{}
	for id, name := range map[string]string{"bob-1": "bob", "bob-2": "Bob", "carol": "carol", "dan": "dan"} {
		s, err := ask[bus.SessionInfo](t, d.startSession, bus.User, "", "", bus.SessionStart{ID: id, Mesh: "team", Name: name, PID: 1})
		must(t, err)
		keys[id] = s.Pubkey
	}
	eventually(t, "all of them to be listed", func() bool {
		must(t, m.roster.list(t.Context()))
		m.roster.mu.Lock()
		defer m.roster.mu.Unlock()
		n := 0
		for _, p := range m.roster.live {
			if slices.Contains([]string{"bob", "Bob", "carol", "dan"}, p.DisplayName) {
				n++
			}
		}
		return n == 4
	})
	must(t, d.endSession(t.Context(), "dan"))
	eventually(t, "dan to be offline", func() bool {
		c, _, err := m.roster.resolve(t.Context(), mesh.Target{Kind: mesh.TargetName, Ref: "dan", Typed: "dan"}, "")
		return err == nil && !c.Online
	})
	send := func(actor, to string) (bus.SendReply, error) {
		return ask[bus.SendReply](t, d.accept, actor, "team", "dm", bus.SendRequest{To: to, Body: "x"})
	}
	named := func(fields map[string]any) (out []string) {
		list, _ := fields["candidates"].([]any)
		for _, c := range list {
			c := c.(map[string]any)
			out = append(out, c["name"].(string)+" "+c["pubkey"].(string)[:8])
		}
		slices.Sort(out)
		return out
	}
	t.Run("one peer", func(t *testing.T) {
		r, err := send(bus.User, "CAROL")
		if err != nil || r.RecipientKey != keys["carol"] || r.RecipientName != "carol" || r.Online != "yes" || r.Code != 202 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("one that is offline", func(t *testing.T) {
		if r, err := send(bus.User, "dan"); err != nil || r.RecipientKey != keys["dan"] || r.Online != "no" {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("a prefix, and a whole key", func(t *testing.T) {
		for _, to := range []string{keys["bob-2"][:16], keys["bob-2"], strings.ToUpper(keys["bob-2"][:20])} {
			if r, err := send(bus.User, to); err != nil || r.RecipientKey != keys["bob-2"] || r.Online != "yes" {
				t.Errorf("%s: %+v, %v", to, r, err)
			}
		}
	})
	t.Run("a name that two have is refused with both", func(t *testing.T) {
		_, err := send(bus.User, "bob")
		want := []string{"Bob " + keys["bob-2"][:8], "bob " + keys["bob-1"][:8]}
		if got := named(refusedWith(t, err, 409, "peer_ambiguous")); !slices.Equal(got, want) {
			t.Errorf("candidates %q, want %q", got, want)
		}
	})
	t.Run("but not to one of the two: the other is meant", func(t *testing.T) {
		if r, err := send("bob-1", "bob"); err != nil || r.RecipientKey != keys["bob-2"] {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("a name nobody has is refused with those who are there", func(t *testing.T) {
		_, err := send(bus.User, "nobody")
		got := named(refusedWith(t, err, 404, "peer_not_found"))
		for _, id := range []string{"bob-1", "bob-2", "carol", "dan"} {
			if !slices.ContainsFunc(got, func(c string) bool { return strings.HasSuffix(c, keys[id][:8]) }) {
				t.Errorf("%s is not among the candidates %q", id, got)
			}
		}
	})
	t.Run("a session does not send to itself", func(t *testing.T) {
		for _, to := range []string{"carol", keys["carol"], keys["carol"][:20]} {
			_, err := send("carol", to)
			refusedWith(t, err, 400, "self")
		}
	})
	t.Run("a session that has ended sends nothing", func(t *testing.T) {
		_, err := send("dan", "carol")
		refusedWith(t, err, 401, "no_session")
	})
	t.Run("the candidates of an error are bounded", func(t *testing.T) {
		if n := len(choices(make([]mesh.Candidate, 500))); n != maxChoices {
			t.Errorf("%d candidates", n)
		}
	})
}
