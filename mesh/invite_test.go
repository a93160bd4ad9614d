package mesh

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func vectorInvite() Invite {
	return Invite{
		MeshID: "mesh0001", MeshSlug: "acme", BrokerURL: "wss://ic.claudemesh.com/ws", ExpiresAt: 1778000000,
		MeshRootKey: "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk", Role: "member",
	}
}

// wire-protocol 6.15.
func TestNewInviteSignsTheReferenceString(t *testing.T) {
	owner := fixedIdentity(t, 3)
	in, token, err := NewInvite(owner, vectorInvite())
	if err != nil {
		t.Fatal(err)
	}
	if want := "77fa48b6540c0ff54623e359b13d3243381efda95862839cdf2ef50b15dd5e5502d3f986201a1186055d48181eca02e9fce1175dbd2bf77a0f75d4ba4f50a309"; in.Signature != want {
		t.Errorf("signature is %s", in.Signature)
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"v":1,"mesh_id":"mesh0001","mesh_slug":"acme","broker_url":"wss://ic.claudemesh.com/ws","expires_at":1778000000,` +
		`"mesh_root_key":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk","role":"member","owner_pubkey":"` + owner.PublicKey() + `","signature":"` + in.Signature + `"}`
	if string(text) != want {
		t.Errorf("token holds %s", text)
	}
}

func TestInviteTokensAreNotEscapedForHTML(t *testing.T) {
	in := vectorInvite()
	in.BrokerURL = "wss://broker.example/ws?a=1&b=2"
	_, token, err := NewInvite(fixedIdentity(t, 3), in)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := base64.RawURLEncoding.DecodeString(token); !strings.Contains(string(text), "a=1&b=2") {
		t.Errorf("token holds %s", text)
	}
}

func TestParseInviteReadsEveryForm(t *testing.T) {
	in, token, err := NewInvite(fixedIdentity(t, 3), vectorInvite())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		token,
		" " + token + "\n",
		InviteLink(token),
		InviteLink(token) + "/",
		"https://claudemesh.com/join/" + token,
		"https://claudemesh.com/es/join/" + token,
		"https://claudemesh.com/es/join/" + token + "/?utm=1#x",
		"http://127.0.0.1:7900/join/" + token,
	} {
		t.Run(strings.ReplaceAll(s, token, "TOKEN"), func(t *testing.T) {
			got, gotToken, err := ParseInvite(s)
			if err != nil || got != in || gotToken != token {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestParseInviteRefuses(t *testing.T) {
	owner := fixedIdentity(t, 3)
	in, token, err := NewInvite(owner, vectorInvite())
	if err != nil {
		t.Fatal(err)
	}
	pack := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	edited := func(edit func(*Invite)) string {
		c := in
		edit(&c)
		text, _ := json.Marshal(c)
		return pack(string(text))
	}
	// signed is an edit by the owner himself: only the shape can refuse it.
	signed := func(edit func(*Invite)) string {
		return edited(func(c *Invite) { edit(c); c.Signature = owner.Sign(c.signed()) })
	}
	full, _ := json.Marshal(in)
	for name, c := range map[string]struct {
		s    string
		want error
	}{
		"nothing":                      {"", ErrInviteMalformed},
		"a sentence":                   {"join my mesh please, it is nice", ErrInviteMalformed},
		"a slug":                       {"acme", ErrInviteMalformed},
		"another page of the site":     {"https://claudemesh.com/dashboard", ErrInviteMalformed},
		"a link without token":         {"ic://join/", ErrInviteMalformed},
		"a link with credentials":      {"https://a:b@claudemesh.com/join/" + token, ErrInviteMalformed},
		"another scheme":               {"ftp://claudemesh.com/join/" + token, ErrInviteMalformed},
		"a padded token":               {token + "==", ErrInviteMalformed},
		"two tokens":                   {token + "\n" + token, ErrInviteMalformed},
		"a token with a tail":          {pack(string(full) + "{}"), ErrInviteMalformed},
		"more than it may be":          {token + strings.Repeat("A", MaxInvite), ErrInviteMalformed},
		"a token of other JSON":        {pack(`["a","b","c","d","e","f"]`), ErrInviteMalformed},
		"a token of null":              {pack("null" + strings.Repeat(" ", 20)), ErrInviteMalformed},
		"a token of no JSON":           {strings.Repeat("A", 40), ErrInviteMalformed},
		"a version 2 invite":           {signed(func(c *Invite) { c.V = 2 }), ErrInviteMalformed},
		"no mesh id":                   {signed(func(c *Invite) { c.MeshID = "" }), ErrInviteMalformed},
		"a mesh id with the separator": {signed(func(c *Invite) { c.MeshID = "a|b" }), ErrInviteMalformed},
		"a slug that is a subject":     {signed(func(c *Invite) { c.MeshSlug = "a.>" }), ErrInviteMalformed},
		"a broker over http":           {signed(func(c *Invite) { c.BrokerURL = "https://x/ws" }), ErrInviteMalformed},
		"a broker without host":        {signed(func(c *Invite) { c.BrokerURL = "ws://:80/ws" }), ErrInviteMalformed},
		"a broker with password":       {signed(func(c *Invite) { c.BrokerURL = "ws://a:b@c/ws" }), ErrInviteMalformed},
		"a broker with an escape":      {signed(func(c *Invite) { c.BrokerURL = "ws://c/\x1b" }), ErrInviteMalformed},
		"no expiry":                    {signed(func(c *Invite) { c.ExpiresAt = 0 }), ErrInviteMalformed},
		"a short root key":             {signed(func(c *Invite) { c.MeshRootKey = c.MeshRootKey[:40] }), ErrInviteMalformed},
		"another role":                 {signed(func(c *Invite) { c.Role = "owner" }), ErrInviteMalformed},
		"an upper-case owner":          {signed(func(c *Invite) { c.OwnerPubkey = strings.ToUpper(c.OwnerPubkey) }), ErrInviteMalformed},
		"no signature":                 {edited(func(c *Invite) { c.Signature = "" }), ErrInviteMalformed},
		"a changed mesh":               {edited(func(c *Invite) { c.MeshID = "mesh0002" }), ErrInviteSignature},
		"a changed role":               {edited(func(c *Invite) { c.Role = "admin" }), ErrInviteSignature},
		"a changed broker":             {edited(func(c *Invite) { c.BrokerURL = "wss://evil/ws" }), ErrInviteSignature},
		"a changed expiry":             {edited(func(c *Invite) { c.ExpiresAt++ }), ErrInviteSignature},
		"a changed owner":              {edited(func(c *Invite) { c.OwnerPubkey = fixedIdentity(t, 4).PublicKey() }), ErrInviteSignature},
		"a weak owner":                 {edited(func(c *Invite) { c.OwnerPubkey = "01" + strings.Repeat("00", 31) }), ErrInviteSignature},
		"a short link":                 {"https://claudemesh.com/i/ABCD2345", ErrInviteCode},
		"a bare code":                  {"ABCD2345", ErrInviteCode},
	} {
		t.Run(name, func(t *testing.T) {
			got, gotToken, err := ParseInvite(c.s)
			if !errors.Is(err, c.want) || got != (Invite{}) || gotToken != "" {
				t.Errorf("got %v, %v; want %v", got, err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), in.MeshRootKey) {
				t.Error("the error tells the root key")
			}
		})
	}
}

func TestNewInviteRefusesWhatNobodyAccepts(t *testing.T) {
	in := vectorInvite()
	in.MeshSlug = "Not A Slug"
	if _, token, err := NewInvite(fixedIdentity(t, 3), in); !errors.Is(err, ErrInviteMalformed) || token != "" {
		t.Errorf("a bad slug: %v", err)
	}
	if _, token, err := NewInvite(Identity{}, vectorInvite()); !errors.Is(err, ErrInviteMalformed) || token != "" {
		t.Errorf("no owner: %v", err)
	}
}

func TestInviteExpiresAfterItsLastSecond(t *testing.T) {
	in := vectorInvite()
	end := time.Unix(in.ExpiresAt, 0)
	for at, want := range map[time.Time]bool{
		end.Add(-time.Hour): false, end: false, end.Add(999 * time.Millisecond): false, end.Add(time.Second): true,
	} {
		if in.Expired(at) != want {
			t.Errorf("at %v expired is %t", at, !want)
		}
	}
}

func TestInviteCode(t *testing.T) {
	for in, want := range map[string][2]string{
		"https://claudemesh.com/i/ABCD2345":     {"https://claudemesh.com", "ABCD2345"},
		"https://claudemesh.com/es/i/ABCD2345/": {"https://claudemesh.com", "ABCD2345"},
		"http://127.0.0.1:7900/i/aZ9":           {"http://127.0.0.1:7900", "aZ9"},
		"claudemesh.com/i/ABCD2345":             {"https://claudemesh.com", "ABCD2345"},
		"localhost:7900/i/ABCD2345":             {"https://localhost:7900", "ABCD2345"},
		" ABCD2345\n":                           {"", "ABCD2345"},
	} {
		if base, code, ok := InviteCode(in); !ok || base != want[0] || code != want[1] {
			t.Errorf("%q: %q %q %t", in, base, code, ok)
		}
	}
	for _, in := range []string{"", "ABC", "ABCDEFGHIJKLMNOPQ", "my-mesh", "https://claudemesh.com/join/ABCD2345", "https://claudemesh.com/i/", "/i/ABCD2345", "ftp://x/i/ABCD2345", "https://x/i/a/b"} {
		if base, code, ok := InviteCode(in); ok {
			t.Errorf("%q is taken for code %q at %q", in, code, base)
		}
	}
}
