package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"claudemesh/wire"
)

// webPage is a web page that a test changes.
type webPage struct {
	*httptest.Server
	mu      sync.Mutex
	status  int
	body    string
	asked   int
	headers http.Header
}

func newPage(t testing.TB, body string) *webPage {
	p := &webPage{status: 200, body: body}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		p.headers = r.Header
		w.WriteHeader(p.status)
		fmt.Fprint(w, p.body)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *webPage) show(status int, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.body = status, body
}

func privateWatches(c *Config) { c.AllowPrivateWatches = true }

// watching makes a watch and waits for its first check.
func (c *client) watching(r *rig, url string, more map[string]any) wire.WatchAck {
	c.t.Helper()
	f := map[string]any{"url": url, "interval": 60}
	for k, v := range more {
		f[k] = v
	}
	ack := into[wire.WatchAck](c, c.call(wire.TypeWatch, f))
	if ack.Type != wire.TypeWatchAck || ack.WatchID == "" {
		c.t.Fatalf("%+v", ack)
	}
	r.watchesChecked()
	return ack
}

func (c *client) watches() []wire.WatchInfo {
	c.t.Helper()
	return into[wire.WatchListResult](c, c.call(wire.TypeWatchList, nil)).Watches
}

func triggered(t *testing.T, p wire.Push) wire.WatchTriggered {
	t.Helper()
	var d wire.WatchTriggered
	if err := p.Data(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWhatAWatchTells(t *testing.T) {
	type step struct{ body, old, tells string } // tells "": nothing
	for _, c := range []struct {
		name, first string
		fields      map[string]any
		steps       []step
	}{
		{"a change", `{"v":1}`, map[string]any{"mode": "json", "extract": "$.v"}, []step{{`{"v":1}`, "", ""}, {`{"v":2}`, "1", "2"}, {`{"v":2}`, "", ""}, {`{}`, "2", "null"}}},
		{"the same under its other name", `{"v":1}`, map[string]any{"mode": "json", "extract": "v", "notify_on": "changed"}, []step{{`{"v":"x"}`, "1", "x"}}},
		{"a match", `{"v":"ok"}`, map[string]any{"mode": "json", "extract": "v", "notify_on": "match:ok"}, []step{{`{"v":"no"}`, "", ""}, {`{"v":"ok"}`, "no", "ok"}, {`{"v":"ok"}`, "", ""}}},
		{"the end of a match", `{"v":"ok"}`, map[string]any{"mode": "json", "extract": "v", "notify_on": "not_match:ok"}, []step{{`{"v":"ok"}`, "", ""}, {`{"v":"no"}`, "ok", "no"}, {`{"v":"nono"}`, "", ""}}},
		{"everything", `{"v":1}`, map[string]any{"mode": "json", "extract": "v", "notify_on": "always"}, []step{{`{"v":1}`, "1", "1"}, {`{"v":1}`, "1", "1"}}},
		{"a hash", "a", nil, []step{{"b", "ca978112ca1bbdca", "3e23e8160039594a"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock, useClock := fakeClock(noon)
			r := newRig(t, useClock, privateWatches)
			a := r.member(r.owner)
			p := newPage(t, c.first)
			ack := a.watching(r, p.URL, c.fields)
			for i, s := range c.steps {
				p.show(200, s.body)
				p.mu.Lock()
				asked := p.asked
				p.mu.Unlock()
				clock.Advance(time.Minute)
				r.until("the next check", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.asked > asked })
				r.watchesChecked()
				a.settle()
				if s.tells == "" {
					for _, held := range a.held {
						t.Errorf("step %d: %s", i, held)
					}
					continue
				}
				push := a.event(wire.EventWatchTriggered)
				d := triggered(t, push)
				if d.OldValue != s.old || d.NewValue != s.tells || d.WatchID != ack.WatchID || push.SenderPubkey != "system" || push.Priority != wire.PriorityNow || !push.Kept() {
					t.Errorf("step %d: %+v", i, push)
				}
				a.clientAck(push, "")
			}
		})
	}
}

func TestAWatchOutlivesConnectionAndProcess(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock, privateWatches)
	p := newPage(t, "up")
	a := r.member(r.owner)
	a.watching(r, p.URL, map[string]any{"mode": "status", "label": "site"})
	a.close()
	r.stop()
	p.show(503, "down")
	r.start()
	clock.Advance(time.Minute)
	r.mailIn(r.mailboxOf(r.owner), 1) // nobody is connected
	a = r.member(r.owner)
	seen := map[string]bool{}
	push := a.fresh(seen)
	if d := triggered(t, push); d.OldValue != "200" || d.NewValue != "503" || d.Label != "site" {
		t.Errorf("%+v", d)
	}
	t.Run("and tells a change once, also if the value was not stored after it was told", func(t *testing.T) {
		ack := a.watches()[0]
		key := watchKey(r.mesh.ID, ack.ID)
		r.watchesChecked()
		rec, err := getRecord[watchRecord](t.Context(), r.broker.store, key)
		if err != nil {
			t.Fatal(err)
		}
		rec.Value.Value, rec.Value.Told = "200", rec.Value.Told-1
		if err := r.broker.store.putRecord(t.Context(), key, rec.Value); err != nil {
			t.Fatal(err)
		}
		r.restart()
		clock.Advance(time.Minute)
		r.until("the value to be stored again", func() bool {
			rec, err := getRecord[watchRecord](t.Context(), r.broker.store, key)
			return err == nil && rec.Value.Value == "503"
		})
		bob := r.addMember("bob")
		a := r.member(r.owner)
		r.member(bob).mustSend(sendFrame("end", r.owner.PublicKey(), "x"))
		if m := a.fresh(seen); m.ClientMessageID != "end" {
			t.Errorf("again: %+v", m)
		}
	})
}

func TestUnwatch(t *testing.T) {
	_, useClock := fakeClock(noon)
	r := newRig(t, useClock, privateWatches, func(c *Config) { c.Limits.WatchesPerMember = 2 })
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	p := newPage(t, "x")
	own, owners := b.watching(r, p.URL, nil), a.watching(r, p.URL, nil)
	unwatch := func(c *client, id string) []byte {
		return c.call(wire.TypeUnwatch, map[string]any{"watchId": id})
	}
	if e := into[wire.Error](b, unwatch(b, owners.WatchID)); e.Code != wire.CodeForbidden {
		t.Errorf("another member's: %+v", e)
	}
	if l := b.watches(); len(l) != 1 || l[0].ID != own.WatchID || l[0].LastValue == "" || l[0].NotifyOn != "change" {
		t.Errorf("listed %+v", l)
	}
	if ack := into[wire.WatchAck](a, unwatch(a, own.WatchID)); ack.URL != p.URL || ack.Interval != 0 {
		t.Errorf("by an admin: %+v", ack)
	}
	if ack := into[wire.WatchAck](b, unwatch(b, own.WatchID)); ack.URL != "" {
		t.Errorf("twice: %+v", ack)
	}
	a.watching(r, p.URL, nil)
	if e := into[wire.Error](a, a.call(wire.TypeWatch, map[string]any{"url": p.URL})); e.Code != wire.CodeLimit {
		t.Errorf("over the limit: %+v", e)
	}
}

func TestAWatchEndsWithItsMember(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock, privateWatches)
	bob := r.addMember("bob")
	b := r.member(bob)
	p := newPage(t, "x")
	ack := b.watching(r, p.URL, nil)
	r.broker.mu.Lock()
	r.broker.meshes[r.mesh.ID].members[bob.PublicKey()].RevokedAt = 1
	r.broker.mu.Unlock()
	clock.Advance(time.Minute)
	r.until("the watch to go", func() bool { return r.broker.watches.find(r.mesh.ID, ack.WatchID) == nil })
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked != 1 {
		t.Errorf("asked %d times", p.asked)
	}
}

func TestAWatchShowsNoSecret(t *testing.T) {
	var log strings.Builder
	var mu sync.Mutex
	_, useClock := fakeClock(noon)
	r := newRig(t, useClock, privateWatches, func(c *Config) { c.Log = logInto(&mu, &log) })
	p := newPage(t, "x")
	a := r.member(r.owner)
	a.watching(r, p.URL, map[string]any{"headers": map[string]string{"Authorization": "Bearer s3cret"}})
	p.mu.Lock()
	if p.headers.Get("Authorization") != "Bearer s3cret" {
		t.Errorf("the page was asked with %v", p.headers)
	}
	p.mu.Unlock()
	list := a.call(wire.TypeWatchList, nil)
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(string(list)+log.String(), "s3cret") {
		t.Errorf("%s\n%s", list, log.String())
	}
}

func TestARedirectTakesNoSecretElsewhere(t *testing.T) {
	other := newPage(t, "other")
	first := httptest.NewServer(http.RedirectHandler(other.URL+"/there", http.StatusFound))
	defer first.Close()
	f := newFetcher(true)
	if _, err := f.value(t.Context(), watchRecord{URL: first.URL + "/?token=s3cret", Mode: wire.WatchHash, Headers: map[string]string{"X-Api-Key": "s3cret"}}); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(other.headers); strings.Contains(text, "s3cret") {
		t.Error(text)
	}
}

func TestWatchesReachThePublicInternetOnly(t *testing.T) {
	r := newRig(t)
	a := r.member(r.owner)
	p := newPage(t, "secret")
	for _, url := range []string{p.URL, "http://localhost/", "http://127.1.2.3/", "http://[::1]/", "http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::ffff:192.168.1.1]/", "http://a.localhost./"} {
		if e := into[wire.Error](a, a.call(wire.TypeWatch, map[string]any{"url": url})); e.Code != wire.CodePrivateAddress {
			t.Errorf("%s: %+v", url, e)
		}
	}
	t.Run("whatever a name or a redirect leads to", func(t *testing.T) {
		// 2130706433 and 0x7f000001 are 127.0.0.1 to some resolvers; to ours they are names, or it says what they are.
		for _, url := range []string{strings.Replace(p.URL, "127.0.0.1", "localhost", 1), strings.Replace(p.URL, "127.0.0.1", "2130706433", 1)} {
			if v, err := newFetcher(false).value(t.Context(), watchRecord{URL: url, Mode: wire.WatchHash}); err == nil {
				t.Errorf("%s: %s", url, v)
			}
		}
		if _, err := newFetcher(false).value(t.Context(), watchRecord{URL: p.URL}); !errors.Is(err, errPrivate) {
			t.Errorf("%v", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.asked != 0 {
			t.Error("it was asked")
		}
	})
	for _, fields := range []map[string]any{
		{"url": "ftp://example.com"},
		{"url": "file:///etc/passwd"},
		{"url": "http://"},
		{"url": "http://a:b@example.com/"},
		{"url": ""},
		{"url": "http://example.com\n"},
		{"url": "https://example.com", "headers": map[string]string{"Host": "x"}},
		{"url": "https://example.com", "headers": map[string]string{"transfer-encoding": "x"}},
		{"url": "https://example.com", "headers": map[string]string{"a b": "x"}},
		{"url": "https://example.com", "headers": map[string]string{"a": "x\r\nb: c"}},
		{"url": "https://example.com", "headers": map[string]string{"a": strings.Repeat("x", 5000)}},
		{"url": "https://example.com", "mode": "regex"},
		{"url": "https://example.com", "notify_on": "never"},
		{"url": "https://example.com", "interval": -1},
	} {
		if e := into[wire.Error](a, a.call(wire.TypeWatch, fields)); e.Code != wire.CodeInvalid {
			t.Errorf("%v: %+v", fields, e)
		}
	}
}

func TestWhichAddressesArePublic(t *testing.T) {
	for ip, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "2606:4700::1111": true, "64:ff9b::808:808": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.1.2.3": false, "100.64.0.1": false, "127.0.0.1": false, "169.254.169.254": false, "172.16.0.1": false, "192.0.0.8": false,
		"192.168.0.1": false, "198.18.0.1": false, "203.0.113.9": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false,
		"::": false, "::1": false, "::127.0.0.1": false, "::ffff:10.0.0.1": false, "64:ff9b::a00:1": false, "64:ff9b:1::1": false, "2002:7f00:1::": false, "2001::1": false,
		"fc00::1": false, "fe80::1": false, "fe80::1%eth0": false, "ff02::1": false, "fec0::1": false, "2001:db8::1": false,
	} {
		if got := public(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
}

func TestWhatIsTakenOfAnAnswer(t *testing.T) {
	for _, c := range []struct{ body, path, want string }{
		{`{"a":{"b":"x"}}`, "$.a.b", "x"},
		{`{"a":{"b":1795376021772}}`, "a.b", "1795376021772"},
		{`{"a":1.0}`, "a", "1"},
		{`{"a":true}`, "a", "true"},
		{`{"a":null}`, "a", "null"},
		{`{"a":[5,6]}`, "a.1", "6"},
		{`{"a":[5,6]}`, "a.9", "null"},
		{`{"a":{"c":1,"b":[2]}}`, "a", `{"b":[2],"c":1}`},
		{`7`, "$", "7"},
		{`{}`, "a.b.c", "null"},
		{`<html>`, "a", "<html>"},
		{strings.Repeat("ü", 300), "a", strings.Repeat("ü", 200)},
	} {
		if got := extract([]byte(c.body), c.path); got != c.want {
			t.Errorf("%.40s at %s: %s, want %s", c.body, c.path, got, c.want)
		}
	}
	long := bounded(strings.Repeat("x", 5000))
	if len(long) > maxWatchValue || long == bounded(strings.Repeat("x", 4999)+"y") {
		t.Error(long)
	}
}

// FuzzExtract: whatever a page answers, a value is valid text of bounded length.
func FuzzExtract(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,2.50,{"c":null}]}}`), "$.a.b.2.c")
	f.Add([]byte("\xff"), "a")
	f.Fuzz(func(t *testing.T, body []byte, path string) {
		v := bounded(extract(body, path))
		if _, err := json.Marshal(v); err != nil || len(v) > maxWatchValue || strings.ToValidUTF8(v, "") != v {
			t.Errorf("%q: %v", v, err)
		}
	})
}

func TestASlowServerDelaysNoOther(t *testing.T) {
	clock, useClock := fakeClock(noon)
	r := newRig(t, useClock, privateWatches)
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer slow.Close()
	defer close(release)
	bob := r.addMember("bob")
	a, b := r.member(r.owner), r.member(bob)
	for range 2 * watchesPerMember {
		a.call(wire.TypeWatch, map[string]any{"url": slow.URL})
	}
	p := newPage(t, "1")
	b.call(wire.TypeWatch, map[string]any{"url": p.URL, "interval": 5})
	r.until("bob's watch", func() bool { l := b.watches(); return len(l) == 1 && l[0].LastValue != "" })
	p.show(200, "2")
	r.until("bob's check to end", func() bool {
		w := r.broker.watches
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.running[r.memberID(bob)] == 0
	})
	clock.Advance(5 * time.Second)
	b.event(wire.EventWatchTriggered)
	w := r.broker.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.running[r.memberID(r.owner)]; n > watchesPerMember {
		t.Errorf("%d of one member's are being checked at once", n)
	}
}
