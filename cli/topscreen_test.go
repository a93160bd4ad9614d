package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"claudemesh/bus"
	"claudemesh/wire"
)

var noonUTC = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// busyScreen shows one mesh, two sessions, and a peer with a hostile name.
func busyScreen() *topScreen {
	summary := "reads\x1b[2Jmail"
	return &topScreen{width: 100, height: 24, now: topJSON{
		at: noonUTC,
		Daemon: bus.Status{
			PID: 7, Version: "1.2.3", StartedAt: noonUTC.Add(-time.Hour).UnixMilli(),
			Meshes: []bus.MeshStatus{
				{Mesh: "team", Link: "open", Peers: 3, Unread: 2, Outbox: map[string]int{"pending": 1, "inflight": 2, "dead": 4}, BrokerURL: "wss://mesh.example.org/ws"},
				{Mesh: "home", Link: "waiting", Error: "connection refused", Outbox: map[string]int{}, BrokerURL: "ws://127.0.0.1:1/ws"},
			},
		},
		Sessions: []bus.SessionInfo{
			{ID: "s1", Name: "alice", Mesh: "team", Pubkey: "aa", Link: "open", Unread: 2, Cwd: "/src", Wake: &bus.WakeInfo{Rung: bus.RungChannel, Channel: bus.ChannelProven}},
			{ID: "s2", Name: "shell", Mesh: "team", Pubkey: "bb", Link: "open", Cwd: "/tmp"},
		},
		Peers: []bus.Peer{
			{Pubkey: "aa", Mesh: "team", DisplayName: "alice", Status: wire.StatusWorking, IsSelf: true},
			{Pubkey: "cc", Mesh: "team", DisplayName: "car\x1b[31mol", Status: wire.StatusIdle, Hostname: "far", Summary: &summary},
		},
	}}
}

func TestTheScreenShowsWhatIsThere(t *testing.T) {
	s := busyScreen()
	got := ansi.Strip(s.draw(false))
	for _, want := range []string{
		"daemon 1.2.3  pid 7  up 1h0m0s  2 meshes  2 sessions  2 unread  3 not sent yet",
		"team  open                          3      2       3        4       wss://mesh.example.org/ws",
		"home  waiting (connection refused)",
		"alice    team  working  open  2       channel (channel proven)  /src",
		"shell    team           open  0       -",
		"car?[31mol  team  idle    far   reads?[2Jmail",
		"q quit   p hold",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

func TestTheScreenNeverOutgrowsTheTerminal(t *testing.T) {
	s := busyScreen()
	for i := range 100 {
		s.now.Peers = append(s.now.Peers, bus.Peer{DisplayName: fmt.Sprintf("peer-%d", i), Mesh: "team"})
		s.pass(bus.MemberMsgSubject("team"), item(t, fmt.Sprintf("id-%d", i), strings.Repeat("x", 500)), noonUTC)
	}
	for _, size := range [][2]int{{100, 24}, {40, 10}, {20, 3}, {300, 200}} {
		s.width, s.height = size[0], size[1]
		lines := strings.Split(s.draw(true), "\n")
		if len(lines) > s.height || s.height >= 10 && len(lines) != s.height {
			t.Errorf("%d lines on a terminal of %d", len(lines), s.height)
		}
		for _, l := range lines {
			if w := ansi.StringWidth(l); w > s.width {
				t.Errorf("a line of %d on a terminal of %d: %q", w, s.width, l)
			}
		}
		if s.height >= 10 && !strings.Contains(lines[len(lines)-1], "held") {
			t.Errorf("the last line is %q", lines[len(lines)-1])
		}
	}
}

func item(t *testing.T, id, body string) []byte {
	t.Helper()
	data, err := json.Marshal(bus.InboxItem{ID: id, Mesh: "team", FromName: "bob\n", To: "alice", Body: body})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWhatPassesIsShownOnceAndCounted(t *testing.T) {
	s := busyScreen()
	s.pass(bus.SessionMsgSubject("team", "s1"), item(t, "1", "first\nline"), noonUTC)
	s.pass(bus.GroupMsgSubject("team", "dev"), item(t, "2", "to a group"), noonUTC)
	s.pass(bus.SessionMsgSubject("team", "s1"), item(t, "2", "to a group"), noonUTC) // the same one
	s.pass(bus.ReceiptSubject("team", bus.User, "m-1"), []byte(`{"mesh":"team","client_message_id":"m-1","state":"surfaced","via":"channel"}`), noonUTC)
	s.pass(bus.SendSubject("team", bus.User, bus.SendDM), []byte(`{"to":"bob","body":"not shown: a request"}`), noonUTC)
	s.pass("no.subject of ours", []byte(`{`), noonUTC)
	s.pass(bus.AllMsgSubject("team"), []byte(`{`), noonUTC)
	s.mute = true
	s.pass(bus.MemberMsgSubject("team"), item(t, "3", "secret"), noonUTC)
	want := []string{
		"12:00:00  team  bob  → alice  first line",
		"12:00:00  team  bob  → alice  to a group",
		"12:00:00  team  m-1… is surfaced by channel",
		"12:00:00  team  bob  → alice  (6 bytes)",
	}
	if strings.Join(s.flow, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", s.flow)
	}
	if r := s.rate(); r != 0.3 {
		t.Errorf("the rate is %v", r)
	}
	if s.now.at = noonUTC.Add(time.Minute); s.rate() != 0 {
		t.Error("the rate stays")
	}
}
