package httpapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"claudemesh/bus"
)

func TestEveryRouteIsInTheDocuments(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "http.md"))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Metrics: http.NotFoundHandler()})
	for _, r := range s.routes {
		if line := "`" + r.method + " " + r.pattern + "`"; !strings.Contains(string(doc), line) {
			t.Errorf("docs/http.md has no %s", line)
		}
	}
}

func TestCursors(t *testing.T) {
	for s, want := range map[string]bool{
		"0-0": true, "12-7": true, " 12-7 ": true, "18446744073709551615-1": true,
		"": false, "1": false, "-": false, "1-": false, "-1": false, "1-2-3": false, "01-2": false, "+1-2": false, "18446744073709551616-1": false, "x-y": false, "1.5-2": false,
	} {
		c, ok := parseCursor(s)
		if ok != want || ok && c.String() != strings.TrimSpace(s) {
			t.Errorf("%q: %v %v", s, c, ok)
		}
	}
}

func TestCopiesOfAMessageAreKnownForAWhile(t *testing.T) {
	s := newSeenIDs()
	if !s.add("a") || s.add("a") || !s.add("") || !s.add("") {
		t.Error("an id is new once, the empty one always")
	}
	for i := range copiesApart {
		s.add(string(rune('一' + i)))
	}
	if !s.add("a") || len(s.ids) != copiesApart {
		t.Errorf("%d ids are kept, and the oldest is forgotten", len(s.ids))
	}
}

func TestHostsOfThisMachine(t *testing.T) {
	for host, want := range map[string]bool{
		"": true, "localhost": true, "LOCALHOST:1": true, "127.0.0.1": true, "127.0.0.1:47823": true, "[::1]:47823": true, "[::1]": true, "::1": true,
		"localhost.evil.example": false, "evil.example": false, "127.0.0.1.evil.example": false, "127.0.0.2": false, "0.0.0.0": false, "localhost:1:2": false, "[localhost": true,
		"user@localhost": false,
	} {
		if localHost(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

func TestTimes(t *testing.T) {
	for s, want := range map[string]int64{
		"": 0, "1700000000000": 1700000000000, "2026-01-31T12:00:00Z": 1769860800000, "2026-01-31T13:00:00.5+01:00": 1769860800500, "2026-01-31": 1769817600000,
		"yesterday": -1, "-5": -1, "0": -1, "2026-13-01": -1, "1e12": -1,
	} {
		got, err := moment(s)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %d %v", s, got, err)
		}
	}
}

func TestFieldsGetASecondNameAndLoseNone(t *testing.T) {
	o, err := parse(json.RawMessage(`{"from_key":"k","reply_to":"","data":{"from_key":"other","more":1},"id":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	o.also(itemNames()).spread("data")
	b, _ := json.Marshal(o)
	if string(b) != `{"data":{"from_key":"other","more":1},"from_key":"k","id":"x","more":1,"reply_to":"","reply_to_id":"","sender_pubkey":"k"}` {
		t.Errorf("%s", b)
	}
}

// bodies are what every decoder of a body is tried with.
func bodies(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"to":"bob","message":"hi"}`, `{"to":"bob","message":"hi","meta":{"a":[1,{"b":null}]},"priority":"now","reply_to_id":"x","client_message_id":"y","mesh":"m"}`,
		`{"session_id":"s","display_name":"d","pid":1,"groups":["a",{"name":"b","role":"c"}]}`, `{"token":"x"}`, `{"presence":{}}`, `{"groups":[7]}`,
		`{"summary":"x","status":"idle","visible":true,"avatar":"a","title":"t","bio":"b","capabilities":["c"]}`, `{"visible":"yes"}`, `[]`, `null`, ``, `{`, `{"to":`, "\xff", `{"a":1}{"b":2}`,
		strings.Repeat(`{"a":`, 20000), `{"to":"a\u0000b","message":"\ud800"}`,
	} {
		f.Add([]byte(s))
	}
}

// refused checks that a decoder says no as the API does: a 400 with a reason.
func refused(t *testing.T, err error) {
	if err == nil {
		return
	}
	api := asAPI(err)
	if api.Code != 400 || api.Reason == "" || !json.Valid(api.Body()) {
		t.Fatalf("%d %s: %s", api.Code, api.Reason, api.Body())
	}
}

func FuzzSend(f *testing.F) {
	bodies(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		req, _, err := sending(data, "key")
		if refused(t, err); err != nil {
			return
		}
		if req.To == "" || req.ClientMessageID == "" || !utf8.ValidString(req.Body) || len(req.Body) > 3*len(data) {
			t.Fatalf("%q became %+v", data, req)
		}
		if _, err := json.Marshal(req); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzRegistration(f *testing.F) {
	bodies(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := registering(data)
		if refused(t, err); err != nil {
			return
		}
		if _, err := json.Marshal(req); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzProfile(f *testing.F) {
	bodies(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var o object
		err := decodeBody(data, &o)
		if refused(t, err); err == nil {
			refused(t, checkProfile(o))
		}
	})
}

// FuzzRequest sends whole requests to the gate of the TCP door: none gets further than a refusal.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/v1/health", "localhost", "", "")
	f.Add("POST", "//", "127.0.0.1:1", "Bearer x", "")
	f.Add("GET", "/v1/skills/%2e%2e", "[::1]", "ClaudeMesh-Session "+strings.Repeat("a", 64), "http://x")
	f.Add("GET", "/v1/memory/%zz?token=1", "evil", "Bearer "+strings.Repeat("0", 64), "")
	s := New(Config{PublicHealth: true, Bus: &bus.Server{}})
	f.Fuzz(func(t *testing.T, method, target, host, authorization, origin string) {
		req, err := http.NewRequest(method, "http://x/", nil)
		if err != nil {
			return
		}
		u, err := req.URL.Parse(target)
		if err != nil {
			return
		}
		if token, err := tokenOf(&http.Request{Header: http.Header{"Authorization": {authorization}}}); err == nil && token != "" {
			if !isToken(token) {
				t.Fatalf("%q passed for a token", token)
			}
			return // the bus decides
		}
		req.URL, req.Host = u, host
		req.Header.Set("Authorization", authorization)
		if authorization == "" {
			req.Header.Del("Authorization")
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		s.gate(false).ServeHTTP(w, req)
		if w.Code < 400 && (u.Path != "/v1/health" || method != "GET" || origin != "" || w.Body.String() != "{\"ok\":true}\n") {
			t.Fatalf("%s %s answered %d %s", method, target, w.Code, w.Body)
		}
	})
}
