package bus

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"claudemesh/mesh"

	"github.com/nats-io/nats.go"
)

func TestTokens(t *testing.T) {
	s := startBus(t, nil)
	ctx := ctxOf(t)
	connect := func(token string) error {
		c, err := Connect(ctx, ClientConfig{Dir: s.cfg.Dir, Token: token, Actor: User})
		if err == nil {
			c.Close()
		}
		return err
	}
	good := grant(t, s, Grant{Role: RoleUser})

	t.Run("a granted token is let in", func(t *testing.T) { must(t, connect(good)) })
	t.Run("no token is refused", func(t *testing.T) { wantErr(t, connect(""), ErrUnauthorized) })
	t.Run("an unknown token is refused, and every time the client is told why", func(t *testing.T) {
		for range 300 {
			wantErr(t, connect(good+"x"), ErrUnauthorized)
		}
	})
	t.Run("the hash of a token is no token", func(t *testing.T) {
		h := HashToken(good)
		wantErr(t, connect(string(h[:])), ErrUnauthorized)
	})
	t.Run("a token is refused at the TCP door as well", func(t *testing.T) {
		_, err := nats.Connect(s.TCPURL(), nats.Token("nonsense"))
		wantErr(t, err, nats.ErrAuthorization)
		_, err = nats.Connect(s.TCPURL())
		wantErr(t, err, nats.ErrAuthorization)
	})
	t.Run("an expired token is refused", func(t *testing.T) {
		wantErr(t, connect(grant(t, s, Grant{Role: RoleUser, Expires: time.Now().Add(-time.Minute)})), ErrUnauthorized)
	})
	t.Run("a revoked token is refused, and its live connections are cut", func(t *testing.T) {
		token := grant(t, s, Grant{Role: RoleUser})
		closed := make(chan struct{})
		_, err := Connect(ctx, ClientConfig{Dir: s.cfg.Dir, Token: token, Actor: User, OnClosed: func() { close(closed) }})
		must(t, err)
		if !s.Grants().Revoke(HashToken(token)) {
			t.Fatal("the token was not known")
		}
		wait(t, closed)
		wantErr(t, connect(token), ErrUnauthorized)
		if s.Grants().Revoke(HashToken(token)) {
			t.Fatal("a revoked token is still known")
		}
	})
	t.Run("a revoked client that reconnects by itself ends", func(t *testing.T) {
		token := grant(t, s, Grant{Role: RoleUser})
		closed := make(chan struct{})
		_, err := Connect(ctx, ClientConfig{Dir: s.cfg.Dir, Token: token, Actor: User, Reconnect: true, OnClosed: func() { close(closed) }})
		must(t, err)
		s.Grants().Revoke(HashToken(token))
		wait(t, closed)
	})
	t.Run("a grant that changes cuts the connections that live on the old one", func(t *testing.T) {
		token := grant(t, s, Grant{Role: RoleSession, Actor: "chg", Mesh: "demo"})
		closed := make(chan struct{})
		_, err := Connect(ctx, ClientConfig{Dir: s.cfg.Dir, Token: token, Actor: "chg", OnClosed: func() { close(closed) }})
		must(t, err)
		must(t, s.Grants().Add(HashToken(token), Grant{Role: RoleSession, Actor: "chg", Mesh: "demo"}))
		select {
		case <-closed:
			t.Fatal("an equal grant cut the connection")
		default:
		}
		must(t, s.Grants().Add(HashToken(token), Grant{Role: RoleSession, Actor: "chg", Mesh: "demo", Groups: []string{"g"}}))
		wait(t, closed)
	})
	t.Run("connections that ended are forgotten", func(t *testing.T) {
		token := grant(t, s, Grant{Role: RoleUser})
		for range 20 {
			must(t, connect(token))
		}
		s.Grants().mu.Lock()
		defer s.Grants().mu.Unlock()
		if n := len(s.Grants().table[HashToken(token)].live); n > 10 {
			t.Errorf("%d connections are noted as live", n)
		}
	})
}

func TestBadGrants(t *testing.T) {
	s := startBus(t, nil)
	for name, g := range map[string]Grant{
		"no role":                                 {},
		"the daemon's own role":                   {Role: roleDaemon},
		"a session without an id":                 {Role: RoleSession, Mesh: "demo"},
		"a session named like the user":           {Role: RoleSession, Actor: User, Mesh: "demo"},
		"a session named like a kind of subject":  {Role: RoleSession, Actor: "msg", Mesh: "demo"},
		"a session whose id is a wildcard":        {Role: RoleSession, Actor: "*", Mesh: "demo"},
		"a session whose id has two tokens":       {Role: RoleSession, Actor: "a.b", Mesh: "demo"},
		"a session without a mesh":                {Role: RoleSession, Actor: "s1"},
		"a session whose mesh is a wildcard":      {Role: RoleSession, Actor: "s1", Mesh: ">"},
		"a capability that does not exist":        {Role: RoleSession, Actor: "s1", Mesh: "demo", Caps: []string{"fly"}},
		"a capability that exists and one not so": {Role: RoleSession, Actor: "s1", Mesh: "demo", Caps: []string{mesh.CapDM, ""}},
	} {
		t.Run(name, func(t *testing.T) { wantErr(t, s.Grants().Add(HashToken(name), g), ErrBadGrant) })
	}
}

// may tells what the live server lets a client do.
func may(t *testing.T, c *Client, verb, subject string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if verb == "pub" {
		err := c.Do(ctx, subject, nil, nil)
		if errors.Is(err, ErrNoDaemon) { // nobody answers: the server let it through
			return true
		}
		if err != nil {
			wantErr(t, err, ErrDenied)
		}
		return err == nil
	}
	sub, err := c.Subscribe(subject, func(*nats.Msg) {})
	if err != nil {
		wantErr(t, err, ErrDenied)
		return false
	}
	must(t, sub.Unsubscribe())
	return true
}

func TestWhatARoleMay(t *testing.T) {
	s := startBus(t, nil)
	must(t, EnsureStreams(ctxOf(t), busConn(t, s)))
	type rule struct {
		verb, subject string
		want          bool
	}
	never := []rule{
		{"pub", "$SYS.REQ.SERVER.PING", false},
		{"pub", "$SYS.REQ.USER.INFO", false},
		{"pub", "$JS.API.STREAM.DELETE.MESSAGES", false},
		{"pub", "$JS.API.CONSUMER.MSG.NEXT.MESSAGES.x", false},
		{"pub", "$JS.API.STREAM.MSG.GET.MESSAGES", false},
		{"pub", "$JS.API.INFO", false},
		{"pub", "$JS.ACK.x", false},
		{"pub", "mesh.demo.msg.session.s1", false},
		{"pub", "mesh.demo.msg.all", false},
		{"pub", "mesh.demo.event.system", false},
		{"pub", "mesh.demo.receipt.s1.m1", false},
		{"pub", "mesh.demo.s2.send.dm", false},
		{"pub", "mesh.demo.s2.call.list_peers", false},
		{"pub", "daemon.s2.inbox-list", false},
		{"pub", "_INBOX.s2.x", false},
		{"pub", "anything", false},
		{"sub", ">", false},
		{"sub", "*.>", false},
		{"sub", "$SYS.>", false},
		{"sub", "$JS.>", false},
		{"sub", "_INBOX.>", false},
		{"sub", "_INBOX.s2.>", false},
		{"sub", "_R_.>", false},
		{"sub", "daemon.>", false},
	}
	for role, c := range map[string]struct {
		client *Client
		rules  []rule
	}{
		"the user": {userClient(t, s), append([]rule{
			{"pub", "mesh.demo.user.send.dm", true},
			{"pub", "mesh.demo.user.call.set_state", true},
			{"pub", "daemon.user.shutdown", true},
			{"pub", "$SRV.INFO.claudemesh", true},
			{"pub", "$SRV.PING", true},
			{"sub", "mesh.>", true},
			{"sub", "mesh.demo.msg.session.s1", true},
			{"sub", "_INBOX.user.x", true},
		}, never...)},
		"a session": {sessionClient(t, s, Grant{Actor: "s1", Mesh: "demo", Groups: []string{"ops", "a b"}}), append([]rule{
			{"pub", "mesh.demo.s1.send.dm", true},
			{"pub", "mesh.other.s1.send.all", true},
			{"pub", "mesh.other.s1.call.anything", true},
			{"pub", "mesh.demo.s1.other", false},
			{"pub", "daemon.s1.inbox-pending", true},
			{"pub", "daemon.user.version", false},
			{"pub", "mesh.demo.user.send.dm", false},
			{"pub", "$SRV.PING", false},
			{"pub", "$SRV.INFO.claudemesh", false},
			{"sub", "mesh.demo.msg.session.s1", true},
			{"sub", "mesh.demo.msg.member", true},
			{"sub", "mesh.demo.msg.all", true},
			{"sub", "mesh.demo.msg.topic.t", true},
			{"sub", "mesh.demo.msg.group.ops", true},
			{"sub", GroupMsgSubject("demo", "a b"), true},
			{"sub", "mesh.demo.event.>", true},
			{"sub", "mesh.demo.receipt.s1.>", true},
			{"sub", "mesh.other.receipt.s1.x", true},
			{"sub", "mesh.demo.msg.session.s2", false},
			{"sub", "mesh.demo.msg.session.*", false},
			{"sub", "mesh.demo.msg.>", false},
			{"sub", "mesh.demo.msg.group.other", false},
			{"sub", "mesh.demo.msg.group.*", false},
			{"sub", "mesh.other.msg.all", false},
			{"sub", "mesh.other.event.>", false},
			{"sub", "mesh.demo.receipt.>", false},
			{"sub", "mesh.demo.receipt.s2.x", false},
			{"sub", "mesh.>", false},
			{"sub", "mesh.demo.s1.send.dm", false},
			{"sub", "$SRV.>", false},
		}, never...)},
		"a session of one mesh": {sessionClient(t, s, Grant{Actor: "s3", Mesh: "demo", OnlyMesh: true}), append([]rule{
			{"pub", "mesh.demo.s3.send.dm", true},
			{"pub", "mesh.demo.s3.call.x", true},
			{"pub", "mesh.other.s3.send.dm", false},
			{"pub", "mesh.other.s3.call.list_peers", false},
			{"sub", "mesh.other.receipt.s3.x", false},
			{"sub", "mesh.demo.receipt.s3.x", true},
		}, never...)},
		"a session that may send to one peer and read state": {sessionClient(t, s, Grant{Actor: "s4", Mesh: "demo", Caps: []string{mesh.CapDM, mesh.CapStateRead}}), append([]rule{
			{"pub", "mesh.demo.s4.send.dm", true},
			{"pub", "mesh.demo.s4.send.all", false},
			{"pub", "mesh.demo.s4.send.group", false},
			{"pub", "mesh.demo.s4.send.topic", false},
			{"pub", "mesh.demo.s4.call.get_state", true},
			{"pub", "mesh.demo.s4.call.set_state", false},
			{"pub", "mesh.demo.s4.call.list_peers", true},
			{"pub", "mesh.demo.s4.call.kick", false},
			{"pub", "daemon.s4.inbox-pending", true},
		}, never...)},
		"a session that may broadcast": {sessionClient(t, s, Grant{Actor: "s5", Mesh: "demo", Caps: []string{mesh.CapBroadcast}}), append([]rule{
			{"pub", "mesh.demo.s5.send.dm", false},
			{"pub", "mesh.demo.s5.send.all", true},
			{"pub", "mesh.demo.s5.send.group", true},
			{"pub", "mesh.demo.s5.send.topic", true},
		}, never...)},
		"a session without capabilities": {sessionClient(t, s, Grant{Actor: "s6", Mesh: "demo", Caps: []string{}}), append([]rule{
			{"pub", "mesh.demo.s6.send.dm", false},
			{"pub", "mesh.demo.s6.call.get_state", false},
			{"pub", "mesh.demo.s6.call.list_peers", true},
			{"sub", "mesh.demo.msg.session.s6", true},
		}, never...)},
	} {
		t.Run(role, func(t *testing.T) {
			for _, r := range c.rules {
				if got := may(t, c.client, r.verb, r.subject); got != r.want {
					t.Errorf("%s %s: allowed is %v, want %v", r.verb, r.subject, got, r.want)
				}
			}
		})
	}
}

func TestEveryPermissionListIsExplicit(t *testing.T) {
	grants := []Grant{{Role: RoleUser}, {Role: RoleTap}, {Role: RoleSession, Actor: "s1", Mesh: "demo"}, {Role: RoleSession, Actor: "s1", Mesh: "demo", Caps: []string{}}}
	for _, g := range grants {
		p, err := permissionsOf(g)
		must(t, err)
		if p.Publish == nil || len(p.Publish.Allow) == 0 || p.Subscribe == nil || len(p.Subscribe.Allow) == 0 || p.Response != nil {
			t.Errorf("%+v: permissions %+v leave something open", g, p)
		}
	}
	if p := permit(nil, nil); len(p.Publish.Allow) == 0 || slices.Contains(p.Subscribe.Allow, ">") {
		t.Errorf("an empty list became %+v", p)
	}
}

func wait(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-ctxOf(t).Done():
		t.Fatal("it did not happen")
	}
}
