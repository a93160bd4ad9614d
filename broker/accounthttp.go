package broker

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// The routes of accounts, but for the page. Nobody is believed about who they are: a machine has its token, a member signs, the operator has the admin token.

// routeRegister has a row in rules: a member registers with its key.
const routeRegister = "POST /cli/register"

// accountRoutes registers them.
func (b *Broker) accountRoutes(mux *http.ServeMux) {
	_, byMember := b.signed(routeRegister, b.registerMember)
	mux.HandleFunc(routeRegister, b.countedSignIn(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Authorization"), mesh.HTTPAuthScheme) {
			byMember(w, r)
			return
		}
		b.registerByAdmin(w, r)
	}))
	mux.HandleFunc("POST /cli/device-code", b.countedSignIn(b.serveDeviceCode))
	mux.HandleFunc("GET /cli/device-code/{code}", b.servePoll) // the code has 256 bits
	mux.HandleFunc("POST /cli/device-token", b.serveDeviceToken)
	mux.HandleFunc("GET /cli/device-approval/{code}", b.countedSignIn(b.withSession(b.serveDeviceRequest)))
	mux.HandleFunc("POST /cli/device-code/{code}/approve", b.countedSignIn(b.withSession(b.serveDecision)))
	mux.HandleFunc("POST /cli/session/revoke", b.serveSessionRevoke)
	mux.HandleFunc("GET /cli/sessions", b.withSession(b.serveAccount))
	mux.HandleFunc("GET /cli/account", b.withSession(b.serveAccount))
	mux.HandleFunc("POST /cli/account/keys", b.withSession(b.serveLinkKeys))
	mux.HandleFunc("POST /cli/account/pass", b.withSession(b.servePass))
	mux.HandleFunc("GET /cli/account/packages", b.withSession(b.servePackages))
	mux.HandleFunc("POST /cli/account/packages", b.withSession(b.serveLeave))
	mux.HandleFunc("GET /cli-auth", b.countedSignIn(b.serveAuthPage))
	mux.HandleFunc("POST /cli-auth", b.countedSignIn(b.serveAuthForm))
}

// countedSignIn refuses an address that asks for sign-ins too often.
func (b *Broker) countedSignIn(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if b.signIns.take(b.clientOf(r)) > 0 {
			w.Header().Set("Retry-After", "10")
			answer(w, http.StatusTooManyRequests, map[string]any{"ok": false, "error": "rate_limited"})
			return
		}
		serve(w, r)
	}
}

// withSession serves a route for machines that are signed in.
func (b *Broker) withSession(serve func(http.ResponseWriter, *http.Request, sessionTokenRecord)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, problem := b.sessionOf(r)
		if problem != "" {
			answer(w, http.StatusUnauthorized, map[string]any{"ok": false, "error": problem})
			return
		}
		serve(w, r, who)
	}
}

// sessionOf finds the machine behind a request; problem is the reference's word for what is wrong.
func (b *Broker) sessionOf(r *http.Request) (who sessionTokenRecord, problem string) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !ok:
		return who, "missing_bearer_token"
	case token == "":
		return who, "empty_bearer_token"
	}
	ctx, cancel := b.deadline()
	defer cancel()
	if who, ok = b.bearerSession(ctx, token); !ok {
		return who, "invalid_or_revoked_token"
	}
	return who, ""
}

func (b *Broker) registerMember(w http.ResponseWriter, r *http.Request, who httpCaller) {
	var req wire.RegisterRequest
	if no := readSigned(w, r, who, &req); no != nil {
		answer(w, no.status, wire.SignedIn{Error: no.code})
		return
	}
	b.openAccount(w, req, accountKey{who.mesh.rec.ID, who.member.Pubkey})
}

func (b *Broker) registerByAdmin(w http.ResponseWriter, r *http.Request) {
	if status, problem := b.authorize(r); problem != "" {
		answer(w, status, wire.SignedIn{Error: problem, Detail: "an account is made by a member of a mesh of this broker, or with its admin token"})
		return
	}
	var req wire.RegisterRequest
	if status, problem := readBody(w, r, &req); problem != "" {
		answer(w, status, wire.SignedIn{Error: problem})
		return
	}
	b.openAccount(w, req)
}

// openAccount makes an account, or finds the one that the key belongs to, and signs the machine in.
func (b *Broker) openAccount(w http.ResponseWriter, req wire.RegisterRequest, keys ...accountKey) {
	if problem := checkDevice(req.Device); problem != "" {
		answer(w, http.StatusBadRequest, wire.SignedIn{Error: wire.CodeInvalid, Detail: problem})
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	id, created := "", false
	if len(keys) > 0 {
		b.accounts.mu.Lock()
		id = b.accounts.byKey[keys[0]]
		b.accounts.mu.Unlock()
	}
	var err error
	if id == "" {
		name := strings.TrimSpace(req.Name)
		if !validName(name) {
			answer(w, http.StatusBadRequest, wire.SignedIn{Error: wire.CodeInvalid, Detail: "an account needs a name of 1 to 128 bytes without control characters"})
			return
		}
		created = true
		id, err = b.makeAccount(ctx, name, keys...)
	}
	var token string
	var rec sessionTokenRecord
	if err == nil {
		token, rec, err = b.signIn(ctx, id, req.Device)
	}
	switch {
	case errors.Is(err, errNameTaken):
		answer(w, http.StatusConflict, wire.SignedIn{Error: errNameTaken.Error(), Detail: "another account of this broker has that name"})
	case errors.Is(err, errTooMany):
		answer(w, http.StatusConflict, wire.SignedIn{Error: wire.CodeLimit, Detail: "this broker has as many accounts as it takes"})
	case err != nil:
		b.log.Error("account not made", "err", err)
		answer(w, http.StatusInternalServerError, wire.SignedIn{Error: wire.CodeInternal})
	default:
		user, _ := b.user(id)
		answer(w, http.StatusOK, wire.SignedIn{OK: true, SessionToken: token, ExpiresAt: wire.Timestamp(rec.expires()), User: &user, Created: created})
	}
}

func (b *Broker) serveDeviceRequest(w http.ResponseWriter, r *http.Request, _ sessionTokenRecord) {
	req, what := b.waiting(r.PathValue("code"))
	if what != "" {
		answer(w, decisionStatus(what), wire.DeviceRequest{Error: what})
		return
	}
	answer(w, http.StatusOK, wire.DeviceRequest{UserCode: req.userCode, ExpiresAt: wire.Timestamp(req.until), From: req.from, Device: req.device})
}

func decisionStatus(what string) int {
	switch what {
	case wire.DeviceExpired:
		return http.StatusGone
	case "decided":
		return http.StatusConflict
	}
	return http.StatusNotFound
}

// serveDecision is a machine's word about another. In the reference anybody may say it, for any account (defect 38).
func (b *Broker) serveDecision(w http.ResponseWriter, r *http.Request, who sessionTokenRecord) {
	no := func(status int, code string) { answer(w, status, map[string]any{"ok": false, "error": code}) }
	var d wire.DeviceDecision
	if status, problem := readJSON(w, r, maxBody+wire.MaxSealedBox, &d); problem != "" {
		no(status, problem)
		return
	}
	if err := d.Validate(); err != nil {
		no(http.StatusBadRequest, err.Error())
		return
	}
	req, what := b.waiting(r.PathValue("code"))
	if what != "" {
		no(decisionStatus(what), what)
		return
	}
	// What was sealed is there before the machine learns that it may come in.
	if d.Package != nil && !d.Deny {
		d.Package.From = who.Device.Pubkey
		if who.Device.Pubkey == "" || d.Package.To != req.device.Pubkey {
			no(http.StatusBadRequest, "the package is not for this machine, or the session that sends it has no key")
			return
		}
		ctx, cancel := b.deadline()
		defer cancel()
		if err := b.depositBox(ctx, who.Account, *d.Package); err != nil {
			b.log.Error("package not kept", "err", err)
			no(http.StatusServiceUnavailable, wire.CodeUnavailable)
			return
		}
	}
	if what := b.decide(req.userCode, who.Account, d.Deny); what != "" {
		no(decisionStatus(what), what)
		return
	}
	answer(w, http.StatusOK, map[string]any{"ok": true})
}

// serveSessionRevoke signs a machine out. A token revokes itself; a machine that is signed in revokes others of its account.
func (b *Broker) serveSessionRevoke(w http.ResponseWriter, r *http.Request) {
	var req wire.SessionRevoke
	if status, problem := readBody(w, r, &req); problem != "" {
		answer(w, status, wire.SessionRevoked{Error: problem})
		return
	}
	match := func(s sessionTokenRecord) bool { return s.Hash == hashSecret(req.Token) }
	if req.ID != "" {
		who, problem := b.sessionOf(r)
		if problem != "" {
			answer(w, http.StatusUnauthorized, wire.SessionRevoked{Error: problem})
			return
		}
		match = func(s sessionTokenRecord) bool { return s.Account == who.Account && s.ID == req.ID }
	} else if req.Token == "" {
		answer(w, http.StatusBadRequest, wire.SessionRevoked{Error: "token or session_id required"})
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	found, err := b.revokeSession(ctx, match)
	if err != nil {
		b.log.Error("session not revoked", "err", err)
		answer(w, http.StatusServiceUnavailable, wire.SessionRevoked{Error: wire.CodeUnavailable})
		return
	}
	answer(w, http.StatusOK, wire.SessionRevoked{OK: true, Found: found})
}

func (b *Broker) serveAccount(w http.ResponseWriter, r *http.Request, who sessionTokenRecord) {
	info := wire.AccountInfo{Sessions: []wire.AccountDevice{}}
	live := b.sessionsOf(who.Account)
	slices.Reverse(live)
	for _, s := range live {
		info.Sessions = append(info.Sessions, wire.AccountDevice{
			ID: s.ID, Hostname: s.Device.Hostname, Platform: s.Device.Platform, Arch: s.Device.Arch, LastSeenAt: wire.Timestamp(unixMilli(s.UsedAt)),
			CreatedAt: wire.Timestamp(unixMilli(s.CreatedAt)), ExpiresAt: wire.Timestamp(s.expires()), Pubkey: s.Device.Pubkey, Current: s.ID == who.ID,
		})
	}
	if r.URL.Path != "/cli/sessions" {
		user, _ := b.user(who.Account)
		info.User = &user
		for _, k := range b.accountKeys(who.Account) {
			info.Keys = append(info.Keys, wire.AccountKey{MeshID: k.Mesh, Pubkey: k.Pubkey})
		}
	}
	answer(w, http.StatusOK, info)
}

func (b *Broker) accountKeys(account string) []accountKey {
	b.accounts.mu.Lock()
	defer b.accounts.mu.Unlock()
	if rec := b.accounts.byID[account]; rec != nil {
		return slices.Clone(rec.Keys)
	}
	return nil
}

// serveLinkKeys links member keys to an account. Each is proven by a signature that names the account, so that nobody links another's.
func (b *Broker) serveLinkKeys(w http.ResponseWriter, r *http.Request, who sessionTokenRecord) {
	var req wire.AccountKeys
	if status, problem := readJSON(w, r, 2*maxBody, &req); problem != "" {
		answer(w, status, wire.AccountKeysLinked{Error: problem})
		return
	}
	if err := req.Validate(); err != nil {
		answer(w, http.StatusBadRequest, wire.AccountKeysLinked{Error: err.Error()})
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	out := wire.AccountKeysLinked{OK: true}
	for _, k := range req.Keys {
		problem := b.checkProof(k, who.Account)
		if problem == "" {
			switch err := b.linkKey(ctx, who.Account, accountKey{k.MeshID, k.Pubkey}); {
			case errors.Is(err, errKeyElsewhere), errors.Is(err, errTooMany):
				problem = err.Error()
			case err != nil:
				b.log.Error("key not linked", "err", err)
				problem = wire.CodeUnavailable
			}
		}
		if problem == "" {
			out.Linked++
			continue
		}
		if out.Refused == nil {
			out.Refused = map[string]string{}
		}
		out.Refused[k.MeshID] = problem
	}
	answer(w, http.StatusOK, out)
}

func (b *Broker) checkProof(k wire.AccountKey, account string) string {
	limit := wire.HelloSkew.Milliseconds()
	if skew := b.now().UnixMilli() - k.Timestamp; skew > limit || skew < -limit {
		return wire.CodeTimestampSkew
	}
	b.mu.RLock()
	m := b.meshes[k.MeshID]
	known := m != nil && m.active(k.Pubkey) != nil
	b.mu.RUnlock()
	switch {
	case !known:
		return wire.CodeUnauthorized
	case !mesh.VerifySignature(k.Pubkey, mesh.AccountKeyString(k.MeshID, k.Pubkey, account, k.Timestamp), k.Signature):
		return wire.CodeBadSignature
	}
	return ""
}

func (b *Broker) servePass(w http.ResponseWriter, _ *http.Request, who sessionTokenRecord) {
	text, until, err := b.newPass(who.Account)
	switch {
	case errors.Is(err, errTooMany):
		answer(w, http.StatusTooManyRequests, wire.AccountPass{Error: wire.CodeLimit})
	case err != nil:
		b.log.Error("pass not made", "err", err)
		answer(w, http.StatusInternalServerError, wire.AccountPass{Error: wire.CodeInternal})
	default:
		answer(w, http.StatusOK, wire.AccountPass{Pass: text, ExpiresAt: wire.Timestamp(until)})
	}
}

func (b *Broker) servePackages(w http.ResponseWriter, _ *http.Request, who sessionTokenRecord) {
	out := wire.SealedBoxes{Packages: []wire.SealedBox{}}
	if who.Device.Pubkey != "" {
		ctx, cancel := b.deadline()
		defer cancel()
		boxes, err := b.packagesFor(ctx, who.Account, who.Device.Pubkey)
		if err != nil {
			b.log.Error("packages not read", "err", err)
			answer(w, http.StatusServiceUnavailable, wire.SealedBoxes{Packages: out.Packages, Error: wire.CodeUnavailable})
			return
		}
		out.Packages = append(out.Packages, boxes...)
	}
	answer(w, http.StatusOK, out)
}

// serveLeave takes a package for another machine of the same account.
func (b *Broker) serveLeave(w http.ResponseWriter, r *http.Request, who sessionTokenRecord) {
	no := func(status int, code string) { answer(w, status, map[string]any{"ok": false, "error": code}) }
	var box wire.SealedBox
	if status, problem := readJSON(w, r, maxBody+wire.MaxSealedBox, &box); problem != "" {
		no(status, problem)
		return
	}
	if err := box.Validate(); err != nil {
		no(http.StatusBadRequest, err.Error())
		return
	}
	if who.Device.Pubkey == "" || !slices.ContainsFunc(b.sessionsOf(who.Account), func(s sessionTokenRecord) bool { return s.Device.Pubkey == box.To }) {
		no(http.StatusNotFound, "no machine of this account has that key")
		return
	}
	box.From = who.Device.Pubkey
	ctx, cancel := b.deadline()
	defer cancel()
	switch err := b.depositBox(ctx, who.Account, box); {
	case errors.Is(err, errTooMany):
		no(http.StatusConflict, wire.CodeLimit)
	case err != nil:
		b.log.Error("package not kept", "err", err)
		no(http.StatusServiceUnavailable, wire.CodeUnavailable)
	default:
		answer(w, http.StatusOK, map[string]any{"ok": true})
	}
}

// serveAccountMeshes is GET /cli/meshes for a machine that is signed in: the meshes in which a key of its account is a member.
func (b *Broker) serveAccountMeshes(w http.ResponseWriter, _ *http.Request, who sessionTokenRecord) {
	keys := b.accountKeys(who.Account)
	answer(w, http.StatusOK, wire.MeshRows{Meshes: b.meshRows(func(m *meshState) *member {
		for _, k := range keys {
			if k.Mesh == m.rec.ID && m.active(k.Pubkey) != nil {
				return m.active(k.Pubkey)
			}
		}
		return nil
	})})
}
