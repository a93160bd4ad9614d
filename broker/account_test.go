package broker

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

const adminToken = "the admin token of the tests"

func withAdmin(c *Config) { c.AdminTokenHash = sha256.Sum256([]byte(adminToken)) }

// registered signs a machine in by a member's key and returns its token.
func (r *rig) registered(who mesh.Identity, name string, device mesh.Identity) (token string, user map[string]any) {
	r.t.Helper()
	status, got := r.do(who, http.MethodPost, "/cli/register", wire.RegisterRequest{Name: name, Device: wire.Device{Hostname: name + "-laptop", Platform: "linux", Arch: "amd64", Pubkey: device.PublicKey()}})
	if status != http.StatusOK || got["ok"] != true {
		r.t.Fatalf("%d %v", status, got)
	}
	return got["session_token"].(string), got["user"].(map[string]any)
}

func (r *rig) deviceCode(d wire.Device) wire.DeviceCode {
	r.t.Helper()
	status, got := r.post("/cli/device-code", "", d)
	if status != http.StatusOK {
		r.t.Fatalf("%d %v", status, got)
	}
	return remade[wire.DeviceCode](r.t, got)
}

func remade[T any](t testing.TB, v any) (out T) {
	t.Helper()
	if err := json.Unmarshal(mustJSON(t, v), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// poll asks as RFC 8628 says.
func (r *rig) poll(code string) (int, wire.DeviceToken) {
	r.t.Helper()
	res, err := r.http.Client().PostForm(r.http.URL+"/cli/device-token", url.Values{"grant_type": {wire.DeviceGrantType}, "device_code": {code}, "client_id": {"claudemesh"}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var out wire.DeviceToken
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, out
}

func TestAccountsAreMadeByWhoProvesSomething(t *testing.T) {
	r := newRig(t, withAdmin)
	bob, device := r.addMember("bob"), newIdentity(t)
	token, user := r.registered(bob, "bob", device)
	t.Run("the token is not in the store", func(t *testing.T) {
		all, err := listRecords[json.RawMessage](t.Context(), r.broker.store, familySession)
		if err != nil || len(all) != 1 || strings.Contains(string(all[0].Value), token) || !strings.Contains(string(all[0].Value), hashSecret(token)) {
			t.Errorf("%v %v", err, all)
		}
	})
	t.Run("the same key signs in to the same account, on another machine", func(t *testing.T) {
		again, same := r.registered(bob, "somebody else", newIdentity(t))
		if again == token || same["id"] != user["id"] || same["display_name"] != "bob" {
			t.Errorf("%v", same)
		}
	})
	t.Run("a name is taken once, whatever the case", func(t *testing.T) {
		status, got := r.do(r.addMember("eve"), http.MethodPost, "/cli/register", wire.RegisterRequest{Name: "BOB"})
		if status != http.StatusConflict || got["error"] != "name_taken" {
			t.Errorf("%d %v", status, got)
		}
	})
	for name, tc := range map[string]struct {
		auth   string
		status int
	}{
		"nobody": {"", 401}, "a wrong admin token": {"Bearer x", 401}, "a session token": {"Bearer " + token, 401}, "the admin token": {"Bearer " + adminToken, 200},
	} {
		t.Run("asked by "+name, func(t *testing.T) {
			if status, got := r.fetch(http.MethodPost, "/cli/register", tc.auth, wire.RegisterRequest{Name: "ops"}); status != tc.status {
				t.Errorf("%d %v", status, got)
			}
		})
	}
	t.Run("everything is there after a restart", func(t *testing.T) {
		r.restart()
		status, got := r.fetch(http.MethodGet, "/cli/account", "Bearer "+token, nil)
		if status != 200 || got["user"].(map[string]any)["id"] != user["id"] || len(got["sessions"].([]any)) != 2 {
			t.Errorf("%d %v", status, got)
		}
		if status, got := r.fetch(http.MethodGet, "/cli/meshes", "Bearer "+token, nil); status != 200 || len(got["meshes"].([]any)) != 1 {
			t.Errorf("%d %v", status, got)
		}
	})
	t.Run("a token revokes itself, and one of its own account", func(t *testing.T) {
		_, mine := r.fetch(http.MethodGet, "/cli/sessions", "Bearer "+token, nil)
		var other string
		for _, s := range remade[wire.AccountInfo](t, mine).Sessions {
			if !s.Current {
				other = s.ID
			}
		}
		if status, got := r.post("/cli/session/revoke", "", wire.SessionRevoke{ID: other}); status != 401 {
			t.Errorf("without a token: %d %v", status, got)
		}
		if status, got := r.post("/cli/session/revoke", token, wire.SessionRevoke{ID: other}); status != 200 || got["found"] != true {
			t.Errorf("%d %v", status, got)
		}
		if status, got := r.post("/cli/session/revoke", "", wire.SessionRevoke{Token: token}); status != 200 || got["found"] != true {
			t.Errorf("%d %v", status, got)
		}
		if status, got := r.fetch(http.MethodGet, "/cli/account", "Bearer "+token, nil); status != 401 || got["error"] != "invalid_or_revoked_token" {
			t.Errorf("%d %v", status, got)
		}
		if _, got := r.post("/cli/session/revoke", "", wire.SessionRevoke{Token: token}); got["found"] != false {
			t.Errorf("%v", got)
		}
	})
}

func TestATokenEndsWithoutUse(t *testing.T) {
	clock, useClock := fakeClock(time.Now())
	r := newRig(t, useClock)
	token, _ := r.registered(r.owner, "ann", newIdentity(t))
	works := func() bool {
		status, _ := r.fetch(http.MethodGet, "/cli/account", "Bearer "+token, nil)
		return status == 200
	}
	for range 12 { // used every 29 days it lives on, for a year
		clock.Advance(29 * 24 * time.Hour)
		if !works() {
			t.Fatal("a token that is used has ended")
		}
	}
	clock.Advance(29 * 24 * time.Hour)
	if works() {
		t.Error("a token lives for more than a year")
	}
	token, _ = r.registered(r.owner, "ann", newIdentity(t))
	clock.Advance(sessionIdle)
	if works() {
		t.Error("a token that nobody used for 30 days works")
	}
	r.restart()
	if all, err := listRecords[sessionTokenRecord](t.Context(), r.broker.store, familySession); err != nil || len(all) != 0 {
		t.Errorf("ended tokens are kept: %v %v", all, err)
	}
}

func TestDeviceAuthorisation(t *testing.T) {
	clock, useClock := fakeClock(time.Now())
	r := newRig(t, useClock)
	bob, old, fresh := r.addMember("bob"), newIdentity(t), newIdentity(t)
	token, user := r.registered(bob, "bob", old)
	wait := func() { clock.Advance(deviceInterval) }
	ask := func() wire.DeviceCode {
		return r.deviceCode(wire.Device{Hostname: "desk", Platform: "linux", Arch: "arm64", Pubkey: fresh.PublicKey(), Check: "abc"})
	}

	t.Run("from the code to the token", func(t *testing.T) {
		code := ask()
		if !regexp.MustCompile(`^[A-Z2-9]{4}-[A-Z2-9]{4}$`).MatchString(code.UserCode) || code.Interval != 2 || code.ExpiresIn != 600 ||
			code.VerificationURI != "http://127.0.0.1:1/cli-auth" || code.VerificationURIComplete != code.VerificationURI+"?user_code="+code.UserCode {
			t.Fatalf("%+v", code)
		}
		if _, got := r.poll(code.DeviceCode); got.Error != "authorization_pending" {
			t.Errorf("%+v", got)
		}
		if _, got := r.poll(code.DeviceCode); got.Error != "slow_down" {
			t.Errorf("asked at once again: %+v", got)
		}
		clock.Advance(slowDownBy)
		status, seen := r.fetch(http.MethodGet, "/cli/device-approval/"+strings.ToLower(code.UserCode), "Bearer "+token, nil)
		if status != 200 || seen["hostname"] != "desk" || seen["device_pubkey"] != fresh.PublicKey() || seen["device_check"] != "abc" || seen["from"] != "127.0.0.1" {
			t.Fatalf("%d %v", status, seen)
		}
		box := wire.SealedBox{To: fresh.PublicKey(), From: "forged", Nonce: "bm9uY2U=", Box: "Ym94"}
		if status, got := r.post("/cli/device-code/"+code.UserCode+"/approve", token, wire.DeviceDecision{Package: &box}); status != 200 {
			t.Fatalf("%d %v", status, got)
		}
		wait()
		clock.Advance(slowDownBy)
		_, got := r.poll(code.DeviceCode)
		if !strings.HasPrefix(got.AccessToken, sessionPrefix) || got.TokenType != "Bearer" || got.User.ID != user["id"] || got.ExpiresIn < int(sessionIdle.Seconds())-1 {
			t.Fatalf("%+v", got)
		}
		clock.Advance(time.Minute)
		if _, twice := r.poll(code.DeviceCode); twice.Error != "invalid_grant" {
			t.Errorf("a second token: %+v", twice)
		}
		_, mail := r.fetch(http.MethodGet, "/cli/account/packages", "Bearer "+got.AccessToken, nil)
		boxes := remade[wire.SealedBoxes](t, mail).Packages
		if len(boxes) != 1 || boxes[0].From != old.PublicKey() || boxes[0].Box != "Ym94" {
			t.Errorf("%+v", boxes)
		}
		if _, none := r.fetch(http.MethodGet, "/cli/account/packages", "Bearer "+token, nil); len(remade[wire.SealedBoxes](t, none).Packages) != 0 {
			t.Errorf("another machine gets the package: %v", none)
		}
		// What was sealed for a machine goes with it.
		r.post("/cli/session/revoke", "", wire.SessionRevoke{Token: got.AccessToken})
		if left, err := listRecords[wire.SealedBox](t.Context(), r.broker.store, familyPackage); err != nil || len(left) != 0 {
			t.Errorf("%v %v", left, err)
		}
	})
	t.Run("as the reference's clients ask", func(t *testing.T) {
		code := ask()
		state := func() wire.DevicePoll {
			_, got := r.httpGet("/cli/device-code/" + code.DeviceCode)
			return remade[wire.DevicePoll](t, got)
		}
		if got := state(); got.Status != wire.DevicePending {
			t.Errorf("%+v", got)
		}
		if status, got := r.post("/cli/device-code/"+code.SessionID+"/approve", token, wire.DeviceDecision{}); status != 200 {
			t.Fatalf("%d %v", status, got)
		}
		if got := state(); got.Status != wire.DeviceApproved || got.SessionToken == "" || got.User.DisplayName != "bob" {
			t.Errorf("%+v", got)
		}
		if got := state(); got.Status != wire.DeviceConsumed || got.SessionToken != "" {
			t.Errorf("%+v", got)
		}
		if _, got := r.httpGet("/cli/device-code/unknown"); got["status"] != wire.DeviceExpired {
			t.Errorf("%v", got)
		}
	})
	t.Run("denied", func(t *testing.T) {
		code := ask()
		r.post("/cli/device-code/"+code.UserCode+"/approve", token, wire.DeviceDecision{Deny: true})
		if _, got := r.poll(code.DeviceCode); got.Error != "access_denied" {
			t.Errorf("%+v", got)
		}
		if status, got := r.post("/cli/device-code/"+code.UserCode+"/approve", token, wire.DeviceDecision{}); status != http.StatusConflict {
			t.Errorf("approved after all: %d %v", status, got)
		}
	})
	t.Run("too late", func(t *testing.T) {
		code := ask()
		clock.Advance(deviceLife + time.Second)
		if status, got := r.post("/cli/device-code/"+code.UserCode+"/approve", token, wire.DeviceDecision{}); status != http.StatusGone {
			t.Errorf("%d %v", status, got)
		}
		if _, got := r.poll(code.DeviceCode); got.Error != "expired_token" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("what is not approved by saying so", func(t *testing.T) {
		code := ask()
		for name, bearer := range map[string]string{"nobody": "", "a guess": "cms_x", "the reference's body": ""} {
			if status, got := r.post("/cli/device-code/"+code.UserCode+"/approve", bearer, map[string]any{"user_id": user["id"], "email": "x@y"}); status != 401 {
				t.Errorf("%s: %d %v", name, status, got)
			}
		}
		if _, got := r.poll(code.DeviceCode); got.Error != "authorization_pending" {
			t.Errorf("%+v", got)
		}
		box := wire.SealedBox{To: old.PublicKey(), Nonce: "bm9uY2U=", Box: "Ym94"}
		if status, got := r.post("/cli/device-code/"+code.UserCode+"/approve", token, wire.DeviceDecision{Package: &box}); status != 400 {
			t.Errorf("a package for another machine: %d %v", status, got)
		}
	})
	t.Run("requests that are no requests", func(t *testing.T) {
		for _, form := range []string{"", "grant_type=password", "grant_type=%zz"} {
			res, err := r.http.Client().Post(r.http.URL+"/cli/device-token", "application/x-www-form-urlencoded", strings.NewReader(form))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 400 {
				t.Errorf("%q: %d", form, res.StatusCode)
			}
		}
		for _, d := range []wire.Device{{Pubkey: "xx"}, {Hostname: strings.Repeat("x", 129)}} {
			if status, got := r.post("/cli/device-code", "", d); status != 400 {
				t.Errorf("%d %v", status, got)
			}
		}
	})
	t.Run("codes are counted by address, and do not pile up", func(t *testing.T) {
		refused := 0
		for range signInTries + 5 {
			if status, _ := r.post("/cli/device-code", "", wire.Device{}); status == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused < 5 {
			t.Errorf("%d of %d refused", refused, signInTries+5)
		}
		codes := &r.broker.accounts.devices
		for range maxDeviceCodes + 10 {
			if _, _, err := r.broker.newDeviceRequest(wire.Device{}, &http.Request{}); err != nil {
				t.Fatal(err)
			}
		}
		if len(codes.byUser) > maxDeviceCodes || len(codes.byHash) != len(codes.byUser) {
			t.Errorf("%d and %d codes wait", len(codes.byUser), len(codes.byHash))
		}
	})
}

func TestMemberKeysAreLinkedByProof(t *testing.T) {
	r := newRig(t)
	bob, eve := r.addMember("bob"), r.addMember("eve")
	token, user := r.registered(bob, "bob", newIdentity(t))
	evesToken, evesUser := r.registered(eve, "eve", newIdentity(t))
	carol := r.addMember("carol")
	proof := func(who mesh.Identity, account string, at time.Time) wire.AccountKey {
		k := wire.AccountKey{MeshID: r.mesh.ID, Pubkey: who.PublicKey(), Timestamp: at.UnixMilli()}
		k.Signature = who.Sign(mesh.AccountKeyString(k.MeshID, k.Pubkey, account, k.Timestamp))
		return k
	}
	id, evesID := user["id"].(string), evesUser["id"].(string)
	now := r.now()
	for _, tc := range []struct {
		name, token string
		key         wire.AccountKey
		want        string
	}{
		{"one's own", token, proof(carol, id, now), ""},
		{"again", token, proof(carol, id, now), ""},
		{"one that is linked elsewhere", evesToken, proof(carol, evesID, now), "key_linked_elsewhere"},
		{"a proof for another account", evesToken, proof(r.owner, id, now), "bad_signature"},
		{"an old proof", token, proof(r.owner, id, now.Add(-time.Hour)), "timestamp_skew"},
		{"somebody who is no member", token, proof(newIdentity(t), id, now), "unauthorized"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, got := r.post("/cli/account/keys", tc.token, wire.AccountKeys{Keys: []wire.AccountKey{tc.key}})
			out := remade[wire.AccountKeysLinked](t, got)
			if status != 200 || out.Refused[r.mesh.ID] != tc.want || (out.Linked == 1) != (tc.want == "") {
				t.Errorf("%d %v", status, got)
			}
		})
	}
}

// browser is a person's: it keeps cookies and follows nothing.
type browser struct {
	*rig
	client *http.Client
}

func (r *rig) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return &browser{r, &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}}
}

func (b *browser) open(path string) (int, string, http.Header) {
	b.t.Helper()
	res, err := b.client.Get(b.http.URL + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(text), res.Header
}

func (b *browser) submit(form url.Values, edit ...func(*http.Request)) (int, string) {
	b.t.Helper()
	req, err := http.NewRequest(http.MethodPost, b.http.URL+"/cli-auth", strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, e := range edit {
		e(req)
	}
	res, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// form opens the page of a code and returns the form as the page made it.
func (b *browser) form(code, secret, account string) url.Values {
	b.t.Helper()
	_, text, _ := b.open("/cli-auth?user_code=" + code)
	m := csrfField.FindStringSubmatch(text)
	if m == nil {
		b.t.Fatalf("no form: %s", text)
	}
	return url.Values{"user_code": {code}, "csrf": {m[1]}, "secret": {secret}, "account": {account}, "action": {"approve"}}
}

func TestTheApprovalPage(t *testing.T) {
	r := newRig(t, withAdmin, func(c *Config) { c.TrustedProxies = nil })
	token, _ := r.registered(r.owner, "ann", newIdentity(t))
	newPass := func() string {
		_, got := r.post("/cli/account/pass", token, map[string]any{})
		return got["pass"].(string)
	}
	hostile := wire.Device{Hostname: `<script>alert(1)</script>` + "\u202eevil", Platform: "linux", Arch: "amd64"}
	state := func(code wire.DeviceCode) string {
		_, got := r.httpGet("/cli/device-code/" + code.DeviceCode)
		return got["status"].(string)
	}

	t.Run("shows what the machine said, as text", func(t *testing.T) {
		code := r.deviceCode(hostile)
		status, text, h := r.browser().open("/cli-auth?user_code=" + code.UserCode)
		if status != 200 || strings.Contains(text, "<script") || strings.Contains(text, "\u202e") || !strings.Contains(text, "&lt;script&gt;") || !strings.Contains(text, code.UserCode) {
			t.Errorf("%d %s", status, text)
		}
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s lacks %s", csp, want)
			}
		}
		cookie := h.Get("Set-Cookie")
		if !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") || h.Get("X-Frame-Options") != "DENY" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%v", h)
		}
		if regexp.MustCompile(`(src|href)=|https?://|@import|url\(`).MatchString(text) {
			t.Error("the page loads something")
		}
	})
	t.Run("approves with the pass of a machine that is signed in, once", func(t *testing.T) {
		pass, b := newPass(), r.browser()
		code := r.deviceCode(hostile)
		if status, text := b.submit(b.form(code.UserCode, pass, "")); status != 200 || !strings.Contains(text, "is signed in") || state(code) != wire.DeviceApproved {
			t.Errorf("%d %s", status, text)
		}
		code = r.deviceCode(hostile)
		if status, _ := b.submit(b.form(code.UserCode, pass, "")); status != 403 || state(code) != wire.DevicePending {
			t.Errorf("the pass works twice: %d", status)
		}
	})
	t.Run("approves with the admin token, for an account that is named", func(t *testing.T) {
		code, b := r.deviceCode(hostile), r.browser()
		if status, text := b.submit(b.form(code.UserCode, adminToken, "")); status != 403 || !strings.Contains(text, "say for which") {
			t.Errorf("%d %s", status, text)
		}
		if status, _ := b.submit(b.form(code.UserCode, adminToken, "Zoë")); status != 200 {
			t.Errorf("%d", status)
		}
		_, got := r.httpGet("/cli/device-code/" + code.DeviceCode)
		if user := got["user"].(map[string]any); user["display_name"] != "Zoë" {
			t.Errorf("%v", got)
		}
	})
	t.Run("denies", func(t *testing.T) {
		code, b := r.deviceCode(hostile), r.browser()
		form := b.form(code.UserCode, newPass(), "")
		form.Set("action", "deny")
		if status, _ := b.submit(form); status != 200 || state(code) != wire.DeviceDenied {
			t.Errorf("%d", status)
		}
	})
	t.Run("takes no form of another browser, code or site", func(t *testing.T) {
		code, mine, other := r.deviceCode(hostile), r.browser(), r.browser()
		second := r.deviceCode(hostile)
		form := mine.form(code.UserCode, adminToken, "Zoë")
		other.form(code.UserCode, "", "")
		if status, _ := other.submit(form); status != 403 {
			t.Errorf("another browser: %d", status)
		}
		if status, _ := r.browser().submit(form); status != 403 {
			t.Errorf("a browser without the cookie: %d", status)
		}
		crossed := url.Values{}
		for k, v := range form {
			crossed[k] = v
		}
		crossed.Set("user_code", second.UserCode)
		if status, _ := mine.submit(crossed); status != 403 {
			t.Errorf("the form of another code: %d", status)
		}
		if status, _ := mine.submit(form, func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "cross-site") }); status != 403 {
			t.Errorf("another site: %d", status)
		}
		if state(code) != wire.DevicePending || state(second) != wire.DevicePending {
			t.Error("a machine was approved")
		}
		if status, _ := mine.submit(form); status != 200 {
			t.Errorf("the right one: %d", status)
		}
	})
	t.Run("gives up on a code after too many wrong secrets", func(t *testing.T) {
		code, b := r.deviceCode(hostile), r.browser()
		form := b.form(code.UserCode, "cmp_wrong", "")
		for range secretTries {
			b.submit(form)
		}
		if state(code) != wire.DeviceDenied {
			t.Error(state(code))
		}
	})
}

// TestThePageIsLookedAt writes what a browser shows into the directory that CLAUDEMESH_SCREENSHOTS names, else into one of the test's own.
func TestThePageIsLookedAt(t *testing.T) {
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		t.Skip("no chromium here: the page is not looked at")
	}
	r := newRig(t, withAdmin)
	r.registered(r.owner, "ann", newIdentity(t))
	code := r.deviceCode(wire.Device{Hostname: "ann-desk", Platform: "linux", Arch: "arm64"})
	dir := os.Getenv("CLAUDEMESH_SCREENSHOTS")
	if dir == "" {
		dir = t.TempDir()
	}
	for name, path := range map[string]string{"ask": "/cli-auth", "decide": "/cli-auth?user_code=" + code.UserCode, "unknown": "/cli-auth?user_code=ABCD-2345"} {
		file := filepath.Join(dir, "cli-auth-"+name+".png")
		cmd := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir="+t.TempDir(), "--window-size=760,860",
			"--screenshot="+file, "--virtual-time-budget=2000", r.http.URL+path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		info, err := os.Stat(file)
		if err != nil || info.Size() < 4<<10 {
			t.Fatalf("%v: the picture is empty", err)
		}
		t.Logf("screenshot of %s: %s (%d bytes)", path, file, info.Size())
	}
}

func FuzzDeviceCode(f *testing.F) {
	secret, err := mesh.NewDeviceSecret(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "ABCD-2345", "abcd 2345", secret.Code("ABCD-2345"), "----", "ABCD-2345-\x00", strings.Repeat("A", 1<<10)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		user, secret, err := mesh.ParseDeviceCode(s)
		if err != nil {
			return
		}
		if len(user) != 9 || normalUserCode(user) != user {
			t.Errorf("%q", user)
		}
		if again, same, err := mesh.ParseDeviceCode(secret.Code(user)); err != nil || again != user || same != secret || fmt.Sprint(secret) != "device secret" {
			t.Errorf("%q %v", again, err)
		}
	})
}
