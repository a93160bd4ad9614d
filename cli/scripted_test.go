//go:build unix

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"claudemesh/bus"
)

// scripted is the real bus under a daemon's lock, with answers made up by the test: for what a real daemon does too rarely or too fast.
type scripted struct {
	t       *testing.T
	home    string
	server  *bus.Server
	service *bus.Service
}

const scriptedToken = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func newScripted(t *testing.T, handlers map[string]bus.Handler) *scripted {
	t.Helper()
	home, err := os.MkdirTemp("/tmp", "cm")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, ".claudemesh", "daemon")
	lock, err := bus.AcquireLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{t: t, home: home}
	s.server, err = bus.StartServer(bus.ServerConfig{Dir: dir, Grants: map[bus.Hash]bus.Grant{bus.HashToken(scriptedToken): {Role: bus.RoleUser}}})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := s.server.ServiceConn()
	if err != nil {
		t.Fatal(err)
	}
	if s.service, err = bus.NewService(nc, "test", nil); err != nil {
		t.Fatal(err)
	}
	for name, h := range handlers {
		subject := bus.AnyDaemonOp(name)
		if name == "send" {
			subject = bus.AnySend
		}
		if err := s.service.Handle(name, subject, 1<<20, h); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(
		nc.Flush(),
		os.WriteFile(filepath.Join(dir, tokenFile), []byte(scriptedToken+"\n"), 0o600),
		os.WriteFile(filepath.Join(home, ".claudemesh", "config.json"), []byte(`{"version":1,"meshes":[{"slug":"team","name":"team"}]}`), 0o600),
		bus.WriteInfo(dir, bus.Info{PID: os.Getpid()}),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(s.service.Shutdown(ctx), s.server.Shutdown(ctx), lock.Release(), os.RemoveAll(home)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run runs the program and returns its exit code and what it printed.
func (s *scripted) run(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	e := hostEnv(append([]string{"claudemesh"}, args...))
	e.stdin, e.stdout, e.stderr = strings.NewReader(""), &out, &errs
	e.getenv = func(name string) string { return map[string]string{"HOME": s.home, noSpawnEnv: "1"}[name] }
	code = run(ctx, e)
	return code, out.String(), errs.String()
}

// cut ends every connection of the user. The token stays good the whole time: a changed grant replaces the old one in one step.
func (s *scripted) cut() {
	grant := bus.Grant{Role: bus.RoleUser, Expires: time.Now().Add(time.Hour)}
	if err := s.server.Grants().Add(bus.HashToken(scriptedToken), grant); err != nil {
		s.t.Error(err)
	}
}

func (s *scripted) receipt(r bus.Receipt) {
	nc, err := s.server.BusConn()
	if err != nil {
		s.t.Error(err)
		return
	}
	defer nc.Close()
	b, err := json.Marshal(r)
	if err := errors.Join(err, nc.Publish(bus.ReceiptSubject("team", bus.User, r.ClientMessageID), b), nc.Flush()); err != nil {
		s.t.Error(err)
	}
}

func accepted(req bus.SendRequest) bus.SendReply {
	return bus.SendReply{ClientMessageID: req.ClientMessageID, Code: 202, Status: "queued", State: bus.StateAccepted, Mesh: "team", Target: req.To, Online: "yes"}
}

func decodeSend(c *bus.Call) bus.SendRequest {
	var req bus.SendRequest
	_ = c.Decode(&req)
	return req
}

func TestSendOverABrokenConnection(t *testing.T) {
	for _, key := range []string{"", "k1"} {
		t.Run(fmt.Sprintf("is repeated under the same id, key %q", key), func(t *testing.T) {
			var mu sync.Mutex
			var ids []string
			var s *scripted
			s = newScripted(t, map[string]bus.Handler{"send": func(_ context.Context, c *bus.Call) (any, error) {
				req := decodeSend(c)
				mu.Lock()
				defer mu.Unlock()
				ids = append(ids, req.ClientMessageID)
				reply := accepted(req)
				if len(ids) == 1 {
					s.cut() // it was accepted, and the answer is lost
				} else {
					reply.Duplicate = true
				}
				return reply, nil
			}})
			args := []string{"send", "bob", "hi", "--json"}
			if key != "" {
				args = append(args, "--idempotency-key", key)
			}
			code, out, errs := s.run(args...)
			var got sendJSON
			if err := json.Unmarshal([]byte(out), &got); code != exitOK || err != nil {
				t.Fatalf("exit code %d, %s%s", code, out, errs)
			}
			if len(ids) != 2 || ids[0] != ids[1] || ids[0] == "" || got.MessageID != ids[0] {
				t.Errorf("ids %q, printed %s", ids, got.MessageID)
			}
			// With a key of the user's own it may have been a repeat from before.
			if got.Duplicate != (key != "") {
				t.Errorf("duplicate is %v", got.Duplicate)
			}
		})
	}

	t.Run("gives up after a few tries, and names the key", func(t *testing.T) {
		var s *scripted
		tries := make(chan string, 100)
		s = newScripted(t, map[string]bus.Handler{"send": func(_ context.Context, c *bus.Call) (any, error) {
			req := decodeSend(c)
			tries <- req.ClientMessageID
			s.cut()
			return accepted(req), nil
		}})
		code, out, _ := s.run("send", "bob", "hi", "--json")
		id := <-tries
		if code != exitInternal || !strings.Contains(out, `"error": "interrupted"`) || !strings.Contains(out, "--idempotency-key "+id) || len(tries) != sendTries-1 {
			t.Errorf("exit code %d after %d tries: %s", code, len(tries)+1, out)
		}
	})
}

func TestWait(t *testing.T) {
	outbox := func(item func() bus.OutboxItem) bus.Handler {
		return func(context.Context, *bus.Call) (any, error) { return item(), nil }
	}
	justAccepted := outbox(func() bus.OutboxItem { return bus.OutboxItem{State: bus.StateAccepted} })

	t.Run("a receipt that comes before the answer is not missed", func(t *testing.T) {
		var s *scripted
		s = newScripted(t, map[string]bus.Handler{
			"send": func(_ context.Context, c *bus.Call) (any, error) {
				req := decodeSend(c)
				s.receipt(bus.Receipt{ClientMessageID: req.ClientMessageID, BrokerMessageID: "b1", State: bus.StateSurfaced, Via: "channel"})
				return accepted(req), nil
			},
			bus.OpOutboxGet: justAccepted,
		})
		code, out, errs := s.run("send", "bob", "hi", "--wait", "delivered")
		if code != exitOK || !strings.HasPrefix(out, "surfaced to bob via channel") {
			t.Errorf("exit code %d: %s%s", code, out, errs)
		}
	})

	t.Run("a state reached before is found in the outbox", func(t *testing.T) {
		s := newScripted(t, map[string]bus.Handler{
			"send":          func(_ context.Context, c *bus.Call) (any, error) { return accepted(decodeSend(c)), nil },
			bus.OpOutboxGet: outbox(func() bus.OutboxItem { return bus.OutboxItem{State: bus.StateSent, BrokerMessageID: "b1"} }),
		})
		code, out, _ := s.run("send", "bob", "hi", "--wait", "sent", "--json")
		if code != exitOK || !strings.Contains(out, `"brokerMessageId": "b1"`) {
			t.Errorf("exit code %d: %s", code, out)
		}
	})

	t.Run("less than what was asked for is not enough, and the time limit says how far it came", func(t *testing.T) {
		var s *scripted
		s = newScripted(t, map[string]bus.Handler{
			"send": func(_ context.Context, c *bus.Call) (any, error) {
				req := decodeSend(c)
				s.receipt(bus.Receipt{ClientMessageID: req.ClientMessageID, State: bus.StateDelivered})
				return accepted(req), nil
			},
			bus.OpOutboxGet: justAccepted,
		})
		code, out, _ := s.run("send", "bob", "hi", "--wait", "surfaced", "--timeout", "300ms", "--json")
		if code != exitInternal || !strings.Contains(out, `"error": "wait_timeout"`) || !strings.Contains(out, `"state": "delivered"`) || !strings.Contains(out, `"ok": false`) {
			t.Errorf("exit code %d: %s", code, out)
		}
	})

	t.Run("a refusal after the acceptance is a failure with its reason", func(t *testing.T) {
		var s *scripted
		s = newScripted(t, map[string]bus.Handler{
			"send": func(_ context.Context, c *bus.Call) (any, error) {
				req := decodeSend(c)
				s.receipt(bus.Receipt{ClientMessageID: req.ClientMessageID, State: bus.StateFailed, Reason: "no such peer"})
				return accepted(req), nil
			},
			bus.OpOutboxGet: justAccepted,
		})
		code, _, errs := s.run("send", "bob", "hi", "--wait", "sent")
		if code != exitFailed || !strings.Contains(errs, "will not be sent: no such peer") {
			t.Errorf("exit code %d: %s", code, errs)
		}
	})

	t.Run("goes on over a lost connection, under the same id", func(t *testing.T) {
		var s *scripted
		var mu sync.Mutex
		var ids []string
		asked := 0
		s = newScripted(t, map[string]bus.Handler{
			"send": func(_ context.Context, c *bus.Call) (any, error) {
				mu.Lock()
				defer mu.Unlock()
				req := decodeSend(c)
				ids = append(ids, req.ClientMessageID)
				reply := accepted(req)
				reply.Duplicate = len(ids) > 1
				return reply, nil
			},
			bus.OpOutboxGet: func(context.Context, *bus.Call) (any, error) {
				mu.Lock()
				defer mu.Unlock()
				if asked++; asked == 1 {
					s.cut()
				}
				return bus.OutboxItem{State: []string{bus.StateAccepted, bus.StateDelivered}[min(asked-1, 1)]}, nil
			},
		})
		code, out, errs := s.run("send", "bob", "hi", "--wait", "delivered", "--json", "--idempotency-key", "k")
		if code != exitOK || !strings.Contains(out, `"duplicate": false`) || !slices.Equal(ids, []string{"k", "k"}) {
			t.Errorf("exit code %d, ids %q: %s%s", code, ids, out, errs)
		}
	})
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		refusal  bus.APIError
		code     int
		contains []string
	}{
		{bus.APIError{Code: 409, Reason: "peer_ambiguous", Detail: `"bob" means 2 peers`, Data: map[string]any{"candidates": []any{map[string]any{"name": "bob", "pubkey": "aa"}}}}, exitUsage, []string{`"error": "peer_ambiguous"`, `"candidates"`, "16 or more hex digits"}},
		{bus.APIError{Code: 404, Reason: "peer_not_found", Detail: "no peer", Data: map[string]any{"candidates": []any{map[string]any{"name": "ca\x1b[31mrol"}}}}, exitNotFound, []string{"known peers: ca?[31mrol"}},
		{bus.APIError{Code: 404, Reason: "mesh_not_joined", Detail: "no mesh", Data: map[string]any{"joined": []string{"alpha"}}}, exitNotFound, []string{"joined meshes: alpha"}},
		{bus.APIError{Code: 409, Reason: "idempotency_key_reused", Data: map[string]any{"conflict": "outbox_pending_fingerprint_mismatch"}}, exitConflict, []string{`"conflict": "outbox_pending_fingerprint_mismatch"`, "idempotency key reused"}},
		{bus.APIError{Code: 413, Reason: "payload_too_large", Detail: "the limit is 49024", Data: map[string]any{"limit": 49024}}, exitUsage, []string{`"limit": 49024`}},
		{bus.APIError{Code: 503, Reason: "mesh_down"}, exitNetwork, nil},
		{bus.APIError{Code: 502, Reason: "broker_refused", Data: map[string]any{"broker_code": "forbidden"}}, exitPermission, nil},
		{bus.APIError{Code: 403, Reason: "forbidden"}, exitPermission, nil},
		{bus.APIError{Code: 507, Reason: "disk_full"}, exitIO, nil},
		{bus.APIError{Code: 500, Reason: "internal"}, exitInternal, []string{"log says more"}},
		{bus.APIError{Code: 400, Reason: "bad_request", Data: map[string]any{"ok": true, "message": "forged"}}, exitUsage, []string{`"ok": false`, `"message": "bad request"`}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d %s", tt.refusal.Code, tt.refusal.Reason), func(t *testing.T) {
			s := newScripted(t, map[string]bus.Handler{"send": func(context.Context, *bus.Call) (any, error) { return nil, &tt.refusal }})
			code, out, errs := s.run("send", "bob", "hi", "--json")
			if code != tt.code || errs != "" || !json.Valid([]byte(out)) {
				t.Errorf("exit code %d, want %d\n%s%s", code, tt.code, out, errs)
			}
			for _, want := range tt.contains {
				if !strings.Contains(out, want) {
					t.Errorf("%s is not in %s", want, out)
				}
			}
			code, out, errs = s.run("send", "bob", "hi")
			if code != tt.code || out != "" || !strings.HasPrefix(errs, "error: ") {
				t.Errorf("for people: exit code %d, stdout %q, stderr %q", code, out, errs)
			}
		})
	}
}

func TestPeerListOfSeveralMeshes(t *testing.T) {
	s := newScripted(t, map[string]bus.Handler{bus.OpMeshList: func(context.Context, *bus.Call) (any, error) { return bus.MeshList{}, nil }})
	err := s.service.Handle("call", bus.AnyCall, 1<<20, func(_ context.Context, c *bus.Call) (any, error) {
		if c.Slug == "down" {
			return nil, &bus.APIError{Code: 503, Reason: "mesh_down", Detail: "the broker of mesh down cannot be reached"}
		}
		return json.RawMessage(`{"mesh":"team","peers":[{"displayName":"zoe","pubkey":"aa","new":{"b":1,"a":2}},{"displayName":"plane","peerRole":"control-plane"},{"displayName":"me","isThisSession":true}]}`), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("one mesh: an array, the own session first, keys of a newer broker kept", func(t *testing.T) {
		code, out, _ := s.run("peer", "list", "--json")
		var rows []map[string]any
		if err := json.Unmarshal([]byte(out), &rows); code != exitOK || err != nil || len(rows) != 2 || rows[0]["displayName"] != "me" || rows[1]["new"] == nil {
			t.Errorf("exit code %d: %s", code, out)
		}
	})
	t.Run("fields: these keys, in this order, null for what is not there", func(t *testing.T) {
		code, out, _ := s.run("peers", "--json=pubkey,name,stats", "--all")
		compact := strings.Join(strings.Fields(out), "")
		want := `[{"pubkey":null,"name":"me","stats":null},{"pubkey":null,"name":"plane","stats":null},{"pubkey":"aa","name":"zoe","stats":null}]`
		if code != exitOK || compact != want {
			t.Errorf("exit code %d: %s", code, compact)
		}
	})
	config := filepath.Join(s.home, ".claudemesh", "config.json")
	if err := os.WriteFile(config, []byte(`{"version":1,"meshes":[{"slug":"down"},{"slug":"team"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("several: one that is down hides no other, and the exit code tells", func(t *testing.T) {
		code, out, errs := s.run("peers", "--json=name")
		compact := strings.Join(strings.Fields(out), "")
		if code != exitNetwork || errs != "" || compact != `[{"mesh":"down","peers":[],"error":"mesh_down"},{"mesh":"team","peers":[{"name":"me"},{"name":"zoe"}]}]` {
			t.Errorf("exit code %d: %s%s", code, compact, errs)
		}
		code, out, errs = s.run("peers")
		if code != exitNetwork || !strings.Contains(out, "2 peers on team") || !strings.Contains(errs, "mesh down: the broker of mesh down cannot be reached") {
			t.Errorf("exit code %d: %s%s", code, out, errs)
		}
	})
}
