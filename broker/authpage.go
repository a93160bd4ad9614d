package broker

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strings"
	"unicode"

	"claudemesh/wire"
)

// The page on which a person lets a machine in that asked by POST /cli/device-code. It loads nothing, runs nothing and is shown in no frame. Who approves
// proves it with every approval, by a pass of a machine that is signed in or by the admin token: there is no session of a browser that a stranger could use.

//go:embed page/cli-auth.html
var authFiles embed.FS

const (
	csrfCookie  = "claudemesh_auth"
	secretTries = 10 // wrong secrets for one code; then the request is refused
)

// authPage is what the template shows. State is ask, decide, approved or denied.
type authPage struct {
	State, Problem, Nonce                     string
	Code, CSRF, Hostname, System, From, Until string
}

func (b *Broker) authTemplate() (*template.Template, error) {
	return template.ParseFS(authFiles, "page/cli-auth.html")
}

// showAuth writes the page.
func (b *Broker) showAuth(w http.ResponseWriter, status int, page authPage) {
	var raw [16]byte
	_, err := io.ReadFull(b.cfg.Rand, raw[:])
	t, parseErr := b.authTemplate()
	page.Nonce = base64.RawURLEncoding.EncodeToString(raw[:])
	var body bytes.Buffer
	if err = errors.Join(err, parseErr); err == nil {
		err = t.Execute(&body, page)
	}
	if err != nil {
		b.log.Error("approval page not made", "err", err)
		http.Error(w, "internal", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+page.Nonce+"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	if _, err := w.Write(body.Bytes()); err != nil {
		b.log.Debug("approval page not written", "err", err)
	}
}

// Problems of a code, in words.
var codeProblems = map[string]string{
	"not_found":        "This code is not known. It may be mistyped, or the machine has given up.",
	wire.DeviceExpired: "This code is too old. Run claudemesh login again on the machine.",
	"decided":          "This code was decided about already.",
}

// serveAuthPage is GET /cli-auth: the request of ?user_code= (or ?session=, as the reference's clients say), else the question for one.
func (b *Broker) serveAuthPage(w http.ResponseWriter, r *http.Request) {
	code := r.URL.Query().Get("user_code")
	if code == "" {
		code = r.URL.Query().Get("session")
	}
	if code == "" {
		b.showAuth(w, http.StatusOK, authPage{State: "ask"})
		return
	}
	req, what := b.waiting(code)
	if what != "" {
		b.showAuth(w, decisionStatus(what), authPage{State: "ask", Problem: codeProblems[what]})
		return
	}
	b.showDecision(w, r, http.StatusOK, req, "")
}

// showDecision shows a request, and binds the form to this browser: a cookie that no other site can send, and a token made of it and the code.
func (b *Broker) showDecision(w http.ResponseWriter, r *http.Request, status int, req deviceRequest, problem string) {
	cookie := ""
	if c, err := r.Cookie(csrfCookie); err == nil && len(c.Value) == 43 {
		cookie = c.Value
	}
	if cookie == "" {
		fresh, err := secret(b.cfg.Rand, "")
		if err != nil {
			b.log.Error("approval page not made", "err", err)
			http.Error(w, "internal", http.StatusInternalServerError)
			return
		}
		cookie = fresh
		http.SetCookie(w, &http.Cookie{
			Name: csrfCookie, Value: cookie, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(deviceLife.Seconds()),
			Secure: r.TLS != nil || strings.HasPrefix(b.cfg.PublicURL, "wss://"),
		})
	}
	b.showAuth(w, status, authPage{
		State: "decide", Problem: problem, Code: req.userCode, CSRF: b.csrf(cookie, req.userCode), Hostname: visible(req.device.Hostname),
		System: visible(strings.TrimSpace(req.device.Platform + " " + req.device.Arch)), From: req.from, Until: req.until.UTC().Format("15:04 UTC"),
	})
}

func (b *Broker) csrf(cookie, code string) string {
	h := hmac.New(sha256.New, b.pageKey)
	io.WriteString(h, cookie+"|"+code)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// visible is a stranger's text on a page: without what moves or hides other text.
func visible(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control) {
			return '?'
		}
		return r
	}, s)
	if s == "" {
		return "not told"
	}
	return s
}

// serveAuthForm is POST /cli-auth: the person's decision.
func (b *Broker) serveAuthForm(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 8<<10)
	if err := r.ParseForm(); err != nil {
		b.showAuth(w, http.StatusBadRequest, authPage{State: "ask", Problem: "The form could not be read."})
		return
	}
	code := normalUserCode(r.PostForm.Get("user_code"))
	cookie, err := r.Cookie(csrfCookie)
	foreign := http.NewCrossOriginProtection().Check(r) != nil
	if foreign || err != nil || !hmac.Equal([]byte(b.csrf(cookie.Value, code)), []byte(r.PostForm.Get("csrf"))) {
		b.showAuth(w, http.StatusForbidden, authPage{State: "ask", Problem: "This form does not come from this page, or it is too old. Type the code again."})
		return
	}
	req, what := b.waiting(code)
	if what != "" {
		b.showAuth(w, decisionStatus(what), authPage{State: "ask", Problem: codeProblems[what]})
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	deny := r.PostForm.Get("action") != "approve"
	account, problem, err := b.approver(ctx, strings.TrimSpace(r.PostForm.Get("secret")), strings.TrimSpace(r.PostForm.Get("account")))
	switch {
	case err != nil:
		b.log.Error("approval failed", "err", err)
		b.showDecision(w, r, http.StatusServiceUnavailable, req, "The broker cannot store this now. Try again.")
		return
	case problem != "":
		if !b.countTry(code) {
			b.showAuth(w, http.StatusForbidden, authPage{State: "denied"})
			return
		}
		b.showDecision(w, r, http.StatusForbidden, req, problem)
		return
	}
	if what := b.decide(code, account, deny); what != "" {
		b.showAuth(w, decisionStatus(what), authPage{State: "ask", Problem: codeProblems[what]})
		return
	}
	state := "approved"
	if deny {
		state = "denied"
	}
	b.log.Info("machine decided about on the page", "account", account, "state", state)
	b.showAuth(w, http.StatusOK, authPage{State: state})
}

// approver finds for whom a secret speaks. With the admin token the account is named, and made if it is not there.
func (b *Broker) approver(ctx context.Context, text, name string) (account, problem string, err error) {
	const wrong = "This is neither a pass that is good nor the admin token."
	switch {
	case text == "":
		return "", "A pass or the admin token is needed, to deny as well.", nil
	case strings.HasPrefix(text, passPrefix):
		id, ok := b.spendPass(text)
		if _, known := b.user(id); !ok || !known {
			return "", wrong, nil
		}
		return id, "", nil
	case !b.isAdminToken(text):
		return "", wrong, nil
	case !validName(name):
		return "", "The admin token can sign in a machine for any account: say for which, by its name.", nil
	}
	b.accounts.mu.Lock()
	rec := b.accounts.named(name)
	b.accounts.mu.Unlock()
	if rec != nil {
		return rec.ID, "", nil
	}
	id, err := b.makeAccount(ctx, name)
	switch {
	case errors.Is(err, errNameTaken):
		return "", "Try again.", nil // it was made just now
	case errors.Is(err, errTooMany):
		return "", "This broker has as many accounts as it takes.", nil
	case err != nil:
		return "", "", fmt.Errorf("make account: %w", err)
	}
	return id, "", nil
}

// countTry counts a wrong secret; false when it was the last.
func (b *Broker) countTry(code string) bool {
	codes := &b.accounts.devices
	codes.mu.Lock()
	defer codes.mu.Unlock()
	req := codes.byUser[code]
	if req == nil {
		return false
	}
	if req.tries++; req.tries < secretTries {
		return true
	}
	req.state = wire.DeviceDenied
	return false
}
