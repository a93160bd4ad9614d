package testenv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/testenv"
	"claudemesh/wire"
)

// httpDoor is one of the two ways to the HTTP of a machine, and the token that requests carry there.
type httpDoor struct {
	t      testing.TB
	base   string
	client *http.Client
	token  string
}

func socketDoor(m *testenv.Machine, token string) *httpDoor {
	path := status(m).HTTPSocket
	return &httpDoor{m.T, "http://localhost", &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}, token}
}

func tcpDoor(m *testenv.Machine, token string) *httpDoor {
	return &httpDoor{m.T, status(m).HTTPURL, &http.Client{Transport: &http.Transport{}}, token}
}

func sessionToken(t testing.TB, s *testenv.Session) string { return tokenIn(t, s.Info.TokenFile) }

// ask makes one request and returns its code and its body.
func (d *httpDoor) ask(method, path, body string, header ...string) (int, map[string]any) {
	d.t.Helper()
	code, raw, h := d.raw(method, path, body, header...)
	if h.Get("Content-Type") != "application/json" {
		d.t.Fatalf("%s %s: content type %q: %s", method, path, h.Get("Content-Type"), raw)
	}
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		d.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
	}
	return code, v
}

func (d *httpDoor) raw(method, path, body string, header ...string) (int, []byte, http.Header) {
	d.t.Helper()
	res := d.open(d.t.Context(), method, path, body, header...)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, raw, res.Header
}

func (d *httpDoor) open(ctx context.Context, method, path, body string, header ...string) *http.Response {
	d.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := d.client.Do(req)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	d.t.Cleanup(d.client.CloseIdleConnections)
	return res
}

// holds checks that got has everything that want has, and the same. got may have more: the reference's names.
func holds(t testing.TB, where string, got, want any) {
	t.Helper()
	w, isObject := want.(map[string]any)
	if !isObject {
		if list, isList := want.([]any); isList {
			g, _ := got.([]any)
			if len(g) != len(list) {
				t.Errorf("%s: %d rows, the bus has %d", where, len(g), len(list))
				return
			}
			for i := range list {
				holds(t, where, g[i], list[i])
			}
			return
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, the bus says %v", where, got, want)
		}
		return
	}
	g, _ := got.(map[string]any)
	for k, v := range w {
		holds(t, where+" "+k, g[k], v)
	}
}

func TestHTTPAnswersWhatTheBusAnswers(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	alice, bob := m.Session(team, "alice"), m.Session(team, "bob")
	m.WaitPeer(team, "alice")
	m.WaitPeer(team, "bob")
	alice.Send("bob", "to bob")
	bob.WaitMessage("to bob")
	sent := m.Send(team, bus.SendRequest{To: "bob", Body: "from the user", ClientMessageID: "first"})
	bob.WaitMessage("from the user")
	m.WaitState(team, sent.ClientMessageID, bus.StateDelivered)
	for _, set := range []string{"a", "b"} {
		if err := testenv.Try(m.User(), bus.CallSubject(team, bus.User, wire.TypeSetState), wire.SetState{Key: set, Value: json.RawMessage(`{"n":1}`)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	type request struct {
		name, path string
		subject    func(actor string) string
		in         any
		at         func(any) any // of the answer, what the bus's answer is held against
	}
	daemonOp := func(op string) func(string) string {
		return func(actor string) string { return bus.DaemonSubject(actor, op) }
	}
	callOp := func(op string) func(string) string {
		return func(actor string) string { return bus.CallSubject(team, actor, op) }
	}
	field := func(name string) func(any) any { return func(v any) any { return v.(map[string]any)[name] } }
	whole := func(v any) any { return v }
	table := []request{
		{"version", "/v1/version", daemonOp(bus.OpVersion), nil, whole},
		{"status", "/v1/status", daemonOp(bus.OpStatus), nil, whole},
		{"meshes", "/v1/meshes", daemonOp(bus.OpMeshList), nil, whole},
		{"sessions", "/v1/sessions", daemonOp(bus.OpSessionList), nil, whole},
		{"outbox", "/v1/outbox", daemonOp(bus.OpOutboxList), nil, whole},
		{"outbox by status", "/v1/outbox?status=done&limit=1", daemonOp(bus.OpOutboxList), bus.OutboxQuery{Status: "done", Limit: 1}, whole},
		{"peers", "/v1/peers", callOp(bus.CallListPeers), nil, whole},
		{"peers of a mesh", "/v1/peers?mesh=team", callOp(bus.CallListPeers), nil, whole},
		{"state", "/v1/state", callOp(wire.TypeListState), nil, whole},
		{"one key", "/v1/state?key=a", callOp(wire.TypeGetState), wire.GetState{Key: "a"}, field("state")},
	}
	for name, who := range map[string]struct {
		client *bus.Client
		actor  string
		token  string
	}{"the user": {m.User(), bus.User, userToken(m)}, "a session": {bob.Client, bob.Info.ID, sessionToken(t, bob)}} {
		for _, door := range []*httpDoor{socketDoor(m, who.token), tcpDoor(m, who.token)} {
			for _, r := range table {
				t.Run(r.name+" to "+name, func(t *testing.T) {
					var want map[string]any
					if err := testenv.Try(who.client, r.subject(who.actor), r.in, &want); err != nil {
						t.Fatal(err)
					}
					delete(want, "type")
					delete(want, "mesh")
					delete(want, "_reqId")
					code, got := door.ask("GET", r.path, "")
					if code != 200 {
						t.Fatalf("code %d: %v", code, got)
					}
					holds(t, r.name, r.at(got), want)
				})
			}
			t.Run("inbox to "+name, func(t *testing.T) {
				var want bus.InboxList
				if err := testenv.Try(who.client, bus.DaemonSubject(who.actor, bus.OpInboxList), nil, &want); err != nil {
					t.Fatal(err)
				}
				_, got := door.ask("GET", "/v1/inbox", "")
				items := got["items"].([]any)
				if len(items) != len(want.Items) || len(items) == 0 {
					t.Fatalf("%d messages, the bus has %d", len(items), len(want.Items))
				}
				first, newest := items[0].(map[string]any), want.Items[len(items)-1]
				if first["id"] != newest.ID || first["sender_pubkey"] != newest.FromKey || first["sender_name"] != newest.FromName || first["body"] != newest.Body {
					t.Errorf("the newest is %v, want %+v", first, newest)
				}
			})
		}
	}
}

func TestHTTPRoutesDoWhatTheySay(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	d := tcpDoor(m, userToken(m))

	t.Run("a message is accepted once under its id", func(t *testing.T) {
		code, got := d.ask("POST", "/v1/send", `{"to":"bob","message":"hello","client_message_id":"k1"}`)
		if code != 202 || got["client_message_id"] != "k1" || got["status"] != "queued" {
			t.Fatalf("%d %v", code, got)
		}
		it := bob.WaitMessage("hello")
		m.WaitState(team, "k1", bus.StateDelivered)
		if code, got = d.ask("POST", "/v1/send", `{"to":"bob","message":"hello"}`, "Idempotency-Key", "k1"); code != 200 || got["duplicate"] != true {
			t.Errorf("the repeat: %d %v", code, got)
		}
		code, got = d.ask("POST", "/v1/send", `{"to":"bob","message":"another","client_message_id":"k1"}`, "Idempotency-Key", "k2")
		if code != 409 || got["error"] != "idempotency_key_reused" || got["conflict"] != "outbox_done_fingerprint_mismatch" || len(got["daemon_fingerprint_prefix"].(string)) != 16 {
			t.Errorf("another message: %d %v", code, got)
		}
		for query, n := range map[string]int{
			"from=" + it.FromKey + "&since=2020-01-01": 1, "from=" + strings.Repeat("0", 64): 0, "since=2100-01-01T00:00:00Z": 0, "topic=none": 0, "limit=1": 1,
		} {
			if code, got = d.ask("GET", "/v1/inbox?"+query, ""); code != 200 || len(got["items"].([]any)) != n {
				t.Errorf("%s: %d %v", query, code, got)
			}
		}
	})
	t.Run("state is written and read", func(t *testing.T) {
		code, got := d.ask("POST", "/v1/state", `{"key":"build","value":{"ok":true}}`)
		if code != 200 || got["ok"] != true || got["mesh"] != team {
			t.Fatalf("%d %v", code, got)
		}
		if _, got = d.ask("GET", "/v1/state?key=build", ""); !reflect.DeepEqual(got["state"].(map[string]any)["value"], map[string]any{"ok": true}) {
			t.Errorf("%v", got)
		}
	})
	t.Run("a memory is kept, found and forgotten", func(t *testing.T) {
		_, got := d.ask("POST", "/v1/memory", `{"content":"staging uses postgres","tags":["db"]}`)
		id := got["id"].(string)
		if _, got = d.ask("GET", "/v1/memory?q=postgres", ""); got["matches"].([]any)[0].(map[string]any)["id"] != id {
			t.Errorf("recall: %v", got)
		}
		if code, got := d.ask("DELETE", "/v1/memory/"+id, ""); code != 200 || got["ok"] != true {
			t.Errorf("forget: %d %v", code, got)
		}
		if code, got := d.ask("DELETE", "/v1/memory/"+id, ""); code != 404 || got["error"] != "memory_not_found" {
			t.Errorf("forget again: %d %v", code, got)
		}
	})
	t.Run("a skill is listed and read", func(t *testing.T) {
		if err := testenv.Try(m.User(), bus.CallSubject(team, bus.User, wire.TypeShareSkill), map[string]any{"name": "ship", "description": "d", "instructions": "do it"}, nil); err != nil {
			t.Fatal(err)
		}
		_, list := d.ask("GET", "/v1/skills", "")
		_, one := d.ask("GET", "/v1/skills/ship", "")
		if list["skills"].([]any)[0].(map[string]any)["name"] != "ship" || one["skill"].(map[string]any)["instructions"] != "do it" || one["skill"].(map[string]any)["mesh"] != team {
			t.Errorf("%v %v", list, one)
		}
	})
	t.Run("a profile is applied field by field", func(t *testing.T) {
		code, got := d.ask("POST", "/v1/profile", `{"summary":"reviewing","status":"working","title":"lead"}`)
		if code != 200 || !reflect.DeepEqual(got["applied"], []any{"status", "summary", "title"}) {
			t.Errorf("%d %v", code, got)
		}
	})
	t.Run("a session begins and ends", func(t *testing.T) {
		code, got := d.ask("POST", "/v1/sessions/register", `{"session_id":"carol","display_name":"Carol","pid":`+jsonOf(os.Getpid())+`,"groups":["reviewers",{"name":"ops","role":"lead"}]}`)
		if code != 200 || got["ok"] != true || got["session_id"] != "carol" || got["mesh"] != team {
			t.Fatalf("%d %v", code, got)
		}
		token := tokenIn(t, got["token_file"].(string))
		as := tcpDoor(m, token)
		if code, got := as.ask("GET", "/v1/sessions/me", ""); code != 200 || got["session"].(map[string]any)["display_name"] != "Carol" {
			t.Errorf("me: %d %v", code, got)
		}
		if code, got := as.ask("DELETE", "/v1/sessions/carol", ""); code != 403 || got["error"] != "forbidden" {
			t.Errorf("by itself, which the bus does not allow either: %d %v", code, got)
		}
		if code, got := d.ask("DELETE", "/v1/sessions/"+token, ""); code != 200 || got["token_prefix"] != token[:8] {
			t.Errorf("end: %d %v", code, got)
		}
		if code, got := as.ask("GET", "/v1/sessions/me", ""); code != 401 || got["error"] != "invalid_token" {
			t.Errorf("after its end: %d %v", code, got)
		}
	})
	t.Run("a message is marked as seen", func(t *testing.T) {
		as := tcpDoor(m, sessionToken(t, bob))
		_, got := as.ask("GET", "/v1/inbox?unread=true", "")
		id := got["items"].([]any)[0].(map[string]any)["id"].(string)
		as.ask("POST", "/v1/inbox/seen", `{"ids":["`+id+`"]}`)
		if _, got = as.ask("GET", "/v1/inbox?unread=true", ""); len(got["items"].([]any)) != 0 {
			t.Errorf("still unread: %v", got)
		}
	})
	t.Run("health tells of the links", func(t *testing.T) {
		code, got := d.ask("GET", "/v1/health", "")
		if code != 200 || got["ok"] != true || got["pid"] != float64(os.Getpid()) || !reflect.DeepEqual(got["brokers"], map[string]any{team: "open"}) {
			t.Errorf("%d %v", code, got)
		}
	})
}

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func TestHTTPRefusals(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	m.WaitLink(team)
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	user, session := tcpDoor(m, userToken(m)), tcpDoor(m, sessionToken(t, bob))
	limited := tcpDoor(m, sessionToken(t, m.SessionWith(bus.SessionStart{Mesh: team, Name: "reader", PID: os.Getpid(), Caps: []string{}})))
	large := `{"to":"bob","message":"` + strings.Repeat("x", 600<<10) + `"}`
	for _, r := range []struct {
		name               string
		door               *httpDoor
		method, path, body string
		code               int
		reason             string
	}{
		{"an unknown path", user, "GET", "/v1/none", "", 404, "not_found"},
		{"the root", user, "GET", "/", "", 404, "not_found"},
		{"a path that is not clean", user, "GET", "//v1/version", "", 404, "not_found"},
		{"metrics that nobody asked for", user, "GET", "/metrics", "", 404, "not_found"},
		{"a wrong method", user, "POST", "/v1/version", "{}", 405, "method_not_allowed"},
		{"another wrong method", user, "DELETE", "/v1/send", "", 405, "method_not_allowed"},
		{"a token in the URL", user, "GET", "/v1/version?token=x", "", 400, "token_in_url"},
		{"a body over the limit", user, "POST", "/v1/send", large, 413, "payload_too_large"},
		{"a message over the limit", user, "POST", "/v1/send", `{"to":"bob","message":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "payload_too_large"},
		{"no JSON", user, "POST", "/v1/send", "to=bob", 400, "bad_request"},
		{"no body", user, "POST", "/v1/send", "", 400, "bad_request"},
		{"a list", user, "POST", "/v1/send", "[]", 400, "bad_request"},
		{"two values", user, "POST", "/v1/send", "{}{}", 400, "bad_request"},
		{"a wrong type", user, "POST", "/v1/send", `{"to":7,"message":"x"}`, 400, "bad_request"},
		{"no target", user, "POST", "/v1/send", `{"message":"x"}`, 400, "missing_to"},
		{"a target that is none", user, "POST", "/v1/send", `{"to":"a\u0000b","message":"x"}`, 400, "bad_target"},
		{"an empty message", user, "POST", "/v1/send", `{"to":"bob"}`, 400, "empty_message"},
		{"a priority that is none", user, "POST", "/v1/send", `{"to":"bob","message":"x","priority":"soon"}`, 400, "bad_priority"},
		{"metadata that is no object", user, "POST", "/v1/send", `{"to":"bob","message":"x","meta":[1]}`, 400, "bad_request"},
		{"a mesh that is not joined", user, "POST", "/v1/send", `{"to":"bob","message":"x","mesh":"none"}`, 404, "mesh_not_joined"},
		{"two different meshes", user, "POST", "/v1/send?mesh=a", `{"to":"bob","message":"x","mesh":"b"}`, 400, "bad_request"},
		{"a peer that is not there", user, "POST", "/v1/send", `{"to":"nobody","message":"x"}`, 404, "peer_not_found"},
		{"peers of an unknown mesh", user, "GET", "/v1/peers?mesh=none", "", 404, "mesh_not_joined"},
		{"a key that is not set", user, "GET", "/v1/state?key=none", "", 404, "state_not_found"},
		{"state without a key", user, "POST", "/v1/state", `{"value":1}`, 400, "missing_key"},
		{"state without a value", user, "POST", "/v1/state", `{"key":"k","value":null}`, 400, "missing_value"},
		{"recall without words", user, "GET", "/v1/memory", "", 400, "missing_query"},
		{"an empty memory", user, "POST", "/v1/memory", `{"content":""}`, 400, "missing_content"},
		{"a skill that is not there", user, "GET", "/v1/skills/none", "", 404, "skill_not_found"},
		{"a profile without fields", user, "POST", "/v1/profile", `{}`, 400, "nothing_to_do"},
		{"a profile with a field of no meaning", user, "POST", "/v1/profile", `{"summary":"x","mood":"y"}`, 400, "unknown_field"},
		{"a status that is none", user, "POST", "/v1/profile", `{"status":"asleep"}`, 400, "bad_request"},
		{"a limit that is none", user, "GET", "/v1/inbox?limit=many", "", 400, "bad_limit"},
		{"a time that is none", user, "GET", "/v1/inbox?since=yesterday", "", 400, "bad_since"},
		{"an outbox status that is none", user, "GET", "/v1/outbox?status=lost", "", 400, "bad_status"},
		{"a requeue of nothing", user, "POST", "/v1/outbox/requeue", `{}`, 400, "missing_id"},
		{"a requeue of what is not there", user, "POST", "/v1/outbox/requeue", `{"id":"none"}`, 404, "not_found"},
		{"a requeue by a session", session, "POST", "/v1/outbox/requeue", `{"id":"none"}`, 403, "forbidden"},
		{"who am I, asked by the user", user, "GET", "/v1/sessions/me", "", 401, "no_session"},
		{"a session with a token of its own", user, "POST", "/v1/sessions/register", `{"token":"` + strings.Repeat("a", 64) + `","session_id":"x","display_name":"x","pid":1}`, 400, "secret_not_taken"},
		{"a session without a process", user, "POST", "/v1/sessions/register", `{"session_id":"x","display_name":"x"}`, 400, "bad_session"},
		{"the end of an unknown session", user, "DELETE", "/v1/sessions/" + strings.Repeat("a", 64), "", 404, "session_not_found"},
		{"an event id that is none", user, "GET", "/v1/events", "", 400, "bad_event_id"},
		{"a send that the session's limits forbid", limited, "POST", "/v1/send", `{"to":"bob","message":"x"}`, 403, bus.ReasonCapability},
		{"state that the session's limits forbid", limited, "POST", "/v1/state", `{"key":"k","value":1}`, 403, bus.ReasonCapability},
	} {
		t.Run(r.name, func(t *testing.T) {
			var header []string
			if r.reason == "bad_event_id" {
				header = []string{"Last-Event-ID", "x"}
			}
			code, got := r.door.ask(r.method, r.path, r.body, header...)
			if code != r.code || got["error"] != r.reason {
				t.Errorf("%d %v, want %d %s", code, got, r.code, r.reason)
			}
		})
	}
	t.Run("several meshes and none named", func(t *testing.T) {
		m.Create("other")
		code, got := user.ask("POST", "/v1/send", `{"to":"bob","message":"x"}`)
		if code != 400 || got["error"] != "mesh_required" || !reflect.DeepEqual(got["attached"], []any{"other", "team"}) {
			t.Errorf("%d %v", code, got)
		}
		if code, got := session.ask("POST", "/v1/state", `{"key":"k","value":1}`); code != 200 || got["mesh"] != team {
			t.Errorf("a session's own mesh: %d %v", code, got)
		}
	})
}

func TestHTTPLetsNobodyInWhoMayNot(t *testing.T) {
	m := testenv.NewMachine(t, func(o *daemon.Options) { o.PublicHealth = true })
	team := m.Create("team")
	m.WaitLink(team)
	var tap bus.Tap
	m.Do(bus.OpTap, bus.TapRequest{}, &tap)
	open, user, socket := tcpDoor(m, ""), tcpDoor(m, userToken(m)), socketDoor(m, "")
	for _, r := range []struct {
		name   string
		door   *httpDoor
		path   string
		header []string
		code   int
		reason string
	}{
		{"no token on TCP", open, "/v1/version", nil, 401, "missing_token"},
		{"a wrong token", tcpDoor(m, strings.Repeat("0", 64)), "/v1/version", nil, 401, "invalid_token"},
		{"a token that cannot be one", open, "/v1/version", []string{"Authorization", "Bearer x"}, 401, "invalid_token"},
		{"another scheme", open, "/v1/version", []string{"Authorization", "Basic " + userToken(m)}, 401, "invalid_token"},
		{"a session that is not there, on the socket", socket, "/v1/version", []string{"Authorization", "ClaudeMesh-Session " + strings.Repeat("0", 64)}, 401, "invalid_token"},
		{"a tap's token", tcpDoor(m, tokenIn(t, tap.TokenFile)), "/v1/version", nil, 403, "forbidden"},
		{"another host", user, "/v1/version", []string{"Host", "evil.example"}, 403, "forbidden_host"},
		{"another host with our port", user, "/v1/version", []string{"Host", "evil.example:47823"}, 403, "forbidden_host"},
		{"a web page", user, "/v1/version", []string{"Origin", "http://evil.example"}, 403, "forbidden_origin"},
		{"a web page of this machine", user, "/v1/version", []string{"Origin", "http://localhost:3000"}, 403, "forbidden_origin"},
		{"a web page on the open health", open, "/v1/health", []string{"Origin", "null"}, 403, "forbidden_origin"},
		{"a name that points here, on the open health", open, "/v1/health", []string{"Host", "evil.example"}, 403, "forbidden_host"},
		{"more than health without a token", open, "/v1/status", nil, 401, "missing_token"},
	} {
		t.Run(r.name, func(t *testing.T) {
			code, got := r.door.ask("GET", r.path, "", r.header...)
			if code != r.code || got["error"] != r.reason {
				t.Errorf("%d %v, want %d %s", code, got, r.code, r.reason)
			}
		})
	}
	t.Run("health without a token says that the daemon lives, and no more", func(t *testing.T) {
		if code, got := open.ask("GET", "/v1/health", ""); code != 200 || !reflect.DeepEqual(got, map[string]any{"ok": true}) {
			t.Errorf("%d %v", code, got)
		}
	})
	t.Run("the socket needs no token", func(t *testing.T) {
		if code, got := socket.ask("GET", "/v1/version", ""); code != 200 {
			t.Errorf("%d %v", code, got)
		}
	})
	t.Run("an IPv6 literal is this machine", func(t *testing.T) {
		if code, got := user.ask("GET", "/v1/version", "", "Host", "[::1]:47823"); code != 200 {
			t.Errorf("%d %v", code, got)
		}
	})
	t.Run("the socket and the files are the user's own", func(t *testing.T) {
		for _, name := range []string{"http.sock", "http-port", "bus.json"} {
			st, err := os.Stat(filepath.Join(m.Dir(), name))
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v %v", name, st, err)
			}
		}
	})
	t.Run("who resets the connection is not taken for somebody else", func(t *testing.T) {
		body := `{"to":"*","message":"sneaked in"}`
		for range 20 {
			c, err := net.Dial("tcp", strings.TrimPrefix(open.base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: "+jsonOf(len(body))+"\r\n\r\n"+body)
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
		var out bus.OutboxList
		m.Do(bus.OpOutboxList, nil, &out)
		if len(out.Items) > 0 {
			t.Errorf("%d messages were accepted", len(out.Items))
		}
	})
}

func TestHTTPIsOffWhenNotWanted(t *testing.T) {
	m := testenv.NewMachine(t, func(o *daemon.Options) { o.NoHTTP = true })
	if s := status(m); s.HTTPSocket != "" || s.HTTPURL != "" {
		t.Errorf("%+v", s)
	}
	if _, err := os.Stat(filepath.Join(m.Dir(), "http.sock")); err == nil {
		t.Error("there is a socket")
	}
	n := testenv.NewMachine(t, func(o *daemon.Options) { o.NoTCP = true })
	if s := status(n); s.HTTPSocket == "" || s.HTTPURL != "" {
		t.Errorf("without TCP: %+v", s)
	}
	m.Stop()
	if b, err := os.ReadFile(filepath.Join(m.Dir(), "http-port")); err == nil {
		t.Errorf("a port is remembered: %s", bytes.TrimSpace(b))
	}
}

func TestTheFiguresCountWhatHappened(t *testing.T) {
	m := testenv.NewMachine(t, func(o *daemon.Options) { o.Metrics = true })
	team := m.Create("team")
	bob := m.Session(team, "bob")
	m.WaitPeer(team, "bob")
	sent := m.Send(team, bus.SendRequest{To: "bob", Body: "hello"})
	got := bob.WaitMessage("hello")
	bob.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: []string{got.ID}, Via: bus.ViaInbox}, nil)
	m.WaitState(team, sent.ClientMessageID, bus.StateSurfaced)
	var text string
	testenv.Wait(t, "the figures", nil, func() bool { // the receipt is published after it is stored
		code, raw, h := tcpDoor(m, userToken(m)).raw("GET", "/metrics", "")
		text = string(raw)
		return code == 200 && h.Get("Content-Type") == "text/plain; version=0.0.4" && strings.Contains(text, `messages_total{state="surfaced"} 1`)
	})
	for _, line := range []string{
		`claudemesh_daemon_messages_total{state="accepted"} 1`, `claudemesh_daemon_messages_total{state="sent"} 1`, `claudemesh_daemon_messages_total{state="delivered"} 1`,
		`claudemesh_daemon_messages_total{state="failed"} 0`, `claudemesh_daemon_received_total 1`, `claudemesh_daemon_shown_total 1`, `claudemesh_daemon_link_open{mesh="team"} 1`,
		`claudemesh_daemon_outbox_rows{mesh="team",status="done"} 1`, `claudemesh_daemon_outbox_depth{mesh="team"} 0`, `claudemesh_daemon_sessions{mesh="team"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
	if code, got := tcpDoor(m, sessionToken(t, bob)).ask("GET", "/metrics", ""); code != 403 {
		t.Errorf("to a session: %d %v", code, got)
	}
	if code, got := tcpDoor(m, "").ask("GET", "/metrics", ""); code != 401 {
		t.Errorf("without a token: %d %v", code, got)
	}
}
