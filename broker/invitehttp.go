package broker

import (
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// The public side of invites: whoever has a code may ask for what it stands for. Lookups are counted by address, because a code has 40 bits only.

// counted refuses an address that asks too often.
func (b *Broker) counted(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if wait := b.lookups.take(b.clientOf(r)); wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
			answer(w, http.StatusTooManyRequests, map[string]any{"found": false, "error": "rate_limited"})
			return
		}
		serve(w, r)
	}
}

// serveCode resolves a code. Unknown, revoked, expired and used-up ones look the same.
func (b *Broker) serveCode(w http.ResponseWriter, r *http.Request) {
	m, n, no := b.openInvite(r)
	switch {
	case no != 0:
		answer(w, no, wire.InviteCode{})
	case n.rec.Token == "":
		b.mu.RLock()
		found := wire.InviteCode{Found: true, Version: 2, MeshID: m.rec.ID, MeshSlug: m.rec.Slug}
		b.mu.RUnlock()
		answer(w, http.StatusOK, found)
	default:
		answer(w, http.StatusOK, wire.InviteCode{Found: true, Token: n.rec.Token, Version: 1})
	}
}

// openInvite finds the invite of the request's code if somebody could still join by it; no is the status of a refusal.
func (b *Broker) openInvite(r *http.Request) (m *meshState, n namedInvite, no int) {
	ctx, cancel := b.deadline()
	defer cancel()
	m, n, err := b.byCode(ctx, r.PathValue("code"))
	switch {
	case err != nil:
		b.log.Error("code not resolved", "err", err)
		return nil, n, http.StatusServiceUnavailable
	case m == nil || n.rec.Revoked || b.now().Unix() > n.rec.Expires || n.rec.Used >= n.rec.MaxUses:
		return nil, n, http.StatusNotFound
	}
	return m, n, 0
}

func (b *Broker) serveClaim(w http.ResponseWriter, r *http.Request) {
	var req wire.ClaimRequest
	if status, problem := readBody(w, r, &req); problem != "" {
		answer(w, status, wire.ClaimReply{Error: wire.CodeMalformed, Detail: problem})
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	status, reply := b.claim(ctx, r.PathValue("code"), req)
	answer(w, status, reply)
}

// invitePage is what a browser shows for a short link: the command, never the token.
var invitePage = template.Must(template.New("invite").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>claudemesh invite</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:4em auto;padding:0 1em}code{background:#8882;padding:.2em .4em;overflow-wrap:anywhere}</style>
{{if .Mesh}}<h1>You are invited to the mesh {{.Mesh}}</h1>
<p>With claudemesh installed, run:</p>
<p><code>claudemesh join {{.Link}}</code></p>
<p>Whoever has this link can join. It is good until {{.Until}}.</p>
{{else}}<h1>This invite is not good</h1>
<p>It was mistyped, used up or revoked, or it has expired. Ask for a new one.</p>
{{end}}</html>
`))

// serveInvitePage is GET /i/{code}: a page for people, the resolver's JSON for programs that ask for JSON.
func (b *Broker) serveInvitePage(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		b.serveCode(w, r)
		return
	}
	m, n, status := b.openInvite(r)
	var page struct{ Mesh, Link, Until string }
	if m == nil {
		page.Mesh = ""
	} else {
		b.mu.RLock()
		page.Mesh = m.rec.Name
		b.mu.RUnlock()
		status = http.StatusOK
		page.Link, page.Until = b.inviteURL(mesh.NormalInviteCode(r.PathValue("code"))), unixMilli(n.rec.Expires*1000).UTC().Format("2006-01-02 15:04 UTC")
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.WriteHeader(status)
	if err := invitePage.Execute(w, page); err != nil {
		b.log.Debug("invite page not written", "err", err)
	}
}
