package broker

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// Device authorisation, RFC 8628: a machine asks for a code, a person approves it elsewhere, and the machine gets its token when it asks again. Codes live in
// memory and for minutes: a broker that restarts meanwhile says "expired", and the person begins again.

const (
	deviceLife     = 10 * time.Minute
	deviceInterval = 2 * time.Second // between two questions of one machine
	slowDownBy     = 5 * time.Second // RFC 8628, 3.5
	maxDeviceCodes = 1024            // that wait at one time; further ones push the oldest out
	passLife       = 10 * time.Minute
	passPrefix     = "cmp_"
	maxPasses      = 256
)

// deviceRequest is one machine that wants to be signed in.
type deviceRequest struct {
	userCode  string
	sessionID string
	hash      string // of the device code
	device    wire.Device
	from      string
	until     time.Time

	state    string // wire.DevicePending, …
	account  string // once approved
	asked    time.Time
	interval time.Duration
	tries    int // wrong secrets on the page
}

// deviceCodes are the requests that wait. It has its own lock: to ask costs nobody else anything.
type deviceCodes struct {
	mu     *sync.Mutex
	byUser map[string]*deviceRequest
	byHash map[string]*deviceRequest
}

func newDeviceCodes() deviceCodes {
	return deviceCodes{mu: &sync.Mutex{}, byUser: map[string]*deviceRequest{}, byHash: map[string]*deviceRequest{}}
}

// forget drops what has been over for a while, and the oldest of too many. Called under the lock.
func (d *deviceCodes) forget(now time.Time) {
	var all []*deviceRequest
	for _, r := range d.byUser {
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y *deviceRequest) int {
		return cmp.Or(x.until.Compare(y.until), cmp.Compare(x.userCode, y.userCode))
	})
	for i, r := range all {
		if now.After(r.until.Add(deviceLife)) || len(all)-i >= maxDeviceCodes {
			delete(d.byUser, r.userCode)
			delete(d.byHash, r.hash)
		}
	}
}

// open finds a request that still waits for its approval, by the person's code or by its session id.
func (d *deviceCodes) open(code string, now time.Time) (*deviceRequest, string) {
	r := d.byUser[normalUserCode(code)]
	if r == nil {
		for _, o := range d.byUser {
			if o.sessionID == code {
				r = o
			}
		}
	}
	switch {
	case r == nil:
		return nil, "not_found"
	case now.After(r.until):
		return nil, wire.DeviceExpired
	case r.state != wire.DevicePending:
		return nil, "decided"
	}
	return r, ""
}

func normalUserCode(code string) string {
	user, _, err := mesh.ParseDeviceCode(code)
	if err != nil {
		return ""
	}
	return user
}

// checkDevice says what is wrong with what a machine says about itself.
func checkDevice(d wire.Device) string {
	switch {
	case d.Validate() != nil:
		return d.Validate().Error()
	case d.Pubkey != "" && !mesh.ValidKey(d.Pubkey):
		return "device_pubkey must be 64 lower-case hex digits"
	}
	return ""
}

// serveDeviceCode is POST /cli/device-code.
func (b *Broker) serveDeviceCode(w http.ResponseWriter, r *http.Request) {
	var d wire.Device
	if status, problem := readBody(w, r, &d); problem != "" {
		answer(w, status, wire.DeviceCode{Error: problem})
		return
	}
	if problem := checkDevice(d); problem != "" {
		answer(w, http.StatusBadRequest, wire.DeviceCode{Error: problem})
		return
	}
	req, code, err := b.newDeviceRequest(d, r)
	if err != nil {
		b.log.Error("device code not made", "err", err)
		answer(w, http.StatusInternalServerError, wire.DeviceCode{Error: wire.CodeInternal})
		return
	}
	page := httpBase(b.cfg.PublicURL) + "/cli-auth"
	answer(w, http.StatusOK, wire.DeviceCode{
		DeviceCode: code, UserCode: req.userCode, SessionID: req.sessionID, ExpiresAt: wire.Timestamp(req.until),
		VerificationURL: page, TokenURL: httpBase(b.cfg.PublicURL) + "/cli/device-token",
		VerificationURI: page, VerificationURIComplete: page + "?user_code=" + req.userCode,
		ExpiresIn: int(deviceLife.Seconds()), Interval: int(deviceInterval.Seconds()),
	})
}

func (b *Broker) newDeviceRequest(d wire.Device, r *http.Request) (*deviceRequest, string, error) {
	code, err := secret(b.cfg.Rand, "")
	if err != nil {
		return nil, "", err
	}
	var session [16]byte
	if _, err := io.ReadFull(b.cfg.Rand, session[:]); err != nil {
		return nil, "", fmt.Errorf("read randomness: %w", err)
	}
	from := "this machine"
	if at := b.clientOf(r); at.IsValid() {
		from = at.Addr().String()
	}
	req := &deviceRequest{
		sessionID: "clm_sess_" + hex.EncodeToString(session[:]), hash: hashSecret(code), device: d, from: from, until: b.now().Add(deviceLife),
		state: wire.DevicePending, interval: deviceInterval,
	}
	codes := &b.accounts.devices
	codes.mu.Lock()
	defer codes.mu.Unlock()
	codes.forget(b.now())
	for req.userCode == "" || codes.byUser[req.userCode] != nil {
		user, err := mesh.NewUserCode(b.cfg.Rand)
		if err != nil {
			return nil, "", err
		}
		req.userCode = normalUserCode(user)
	}
	codes.byUser[req.userCode], codes.byHash[req.hash] = req, req
	return req, code, nil
}

// take answers a machine that asks whether it was approved. The one answer that finds it so makes it "consumed"; pace refuses who asks too often.
func (b *Broker) take(code string, pace bool) (r deviceRequest, status string) {
	codes, now := &b.accounts.devices, b.now()
	codes.mu.Lock()
	defer codes.mu.Unlock()
	req := codes.byHash[hashSecret(code)]
	if req == nil || now.After(req.until) && req.state != wire.DeviceConsumed {
		return r, wire.DeviceExpired
	}
	early := pace && !req.asked.IsZero() && now.Sub(req.asked) < req.interval-100*time.Millisecond // a client's clock is not ours
	req.asked = now
	if early {
		req.interval += slowDownBy
		return *req, "slow_down"
	}
	status = req.state
	if status == wire.DeviceApproved {
		req.state = wire.DeviceConsumed
	}
	return *req, status
}

// servePoll is GET /cli/device-code/{code}, as the reference's clients ask.
func (b *Broker) servePoll(w http.ResponseWriter, r *http.Request) {
	req, status := b.take(r.PathValue("code"), false)
	if status != wire.DeviceApproved {
		answer(w, http.StatusOK, wire.DevicePoll{Status: status})
		return
	}
	got, user, err := b.admitMachine(req)
	if err != nil {
		b.log.Error("machine not signed in", "err", err)
		answer(w, http.StatusInternalServerError, wire.DevicePoll{Status: wire.DeviceExpired})
		return
	}
	answer(w, http.StatusOK, wire.DevicePoll{Status: status, SessionToken: got.token, ExpiresAt: wire.Timestamp(got.until), User: &user})
}

// serveDeviceToken is POST /cli/device-token, as RFC 8628 says.
func (b *Broker) serveDeviceToken(w http.ResponseWriter, r *http.Request) {
	no := func(code string) { answer(w, http.StatusBadRequest, wire.DeviceToken{Error: code}) }
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	if err := r.ParseForm(); err != nil {
		no("invalid_request")
		return
	}
	if r.PostForm.Get("grant_type") != wire.DeviceGrantType {
		no("unsupported_grant_type")
		return
	}
	req, status := b.take(r.PostForm.Get("device_code"), true)
	switch status {
	case wire.DevicePending:
		no("authorization_pending")
		return
	case wire.DeviceDenied:
		no("access_denied")
		return
	case wire.DeviceExpired:
		no("expired_token")
		return
	case wire.DeviceConsumed:
		no("invalid_grant")
		return
	case "slow_down":
		no(status)
		return
	}
	got, user, err := b.admitMachine(req)
	if err != nil {
		b.log.Error("machine not signed in", "err", err)
		answer(w, http.StatusInternalServerError, wire.DeviceToken{Error: "server_error"})
		return
	}
	answer(w, http.StatusOK, wire.DeviceToken{AccessToken: got.token, TokenType: "Bearer", ExpiresIn: int(got.until.Sub(b.now()).Seconds()), User: &user})
}

// admission is a token that was just made.
type admission struct {
	token string
	until time.Time
}

// admitMachine signs in a machine whose request was approved.
func (b *Broker) admitMachine(req deviceRequest) (admission, wire.User, error) {
	// Not the request's context: the code is used up, and the token must be stored whatever the client does.
	ctx, cancel := b.deadline()
	defer cancel()
	user, ok := b.user(req.account)
	if !ok {
		return admission{}, user, errNoRecord
	}
	token, rec, err := b.signIn(ctx, req.account, req.device)
	return admission{token, rec.expires()}, user, err
}

// decide approves or denies a request. what is "" when it was done, else why not.
func (b *Broker) decide(code, account string, deny bool) (what string) {
	codes := &b.accounts.devices
	codes.mu.Lock()
	defer codes.mu.Unlock()
	req, what := codes.open(code, b.now())
	if req == nil {
		return what
	}
	req.state, req.account = wire.DeviceApproved, account
	if deny {
		req.state, req.account = wire.DeviceDenied, ""
	}
	return ""
}

// waiting is a copy of a request that waits.
func (b *Broker) waiting(code string) (req deviceRequest, what string) {
	codes := &b.accounts.devices
	codes.mu.Lock()
	defer codes.mu.Unlock()
	r, what := codes.open(code, b.now())
	if r == nil {
		return req, what
	}
	return *r, ""
}

// newPass makes a secret that approves one machine for an account on the page.
func (b *Broker) newPass(account string) (string, time.Time, error) {
	text, err := secret(b.cfg.Rand, passPrefix)
	if err != nil {
		return "", time.Time{}, err
	}
	a, now := b.accounts, b.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for hash, p := range a.passes {
		if now.After(p.until) || len(a.passes) >= maxPasses && p.account == account {
			delete(a.passes, hash)
		}
	}
	if len(a.passes) >= maxPasses {
		return "", time.Time{}, errTooMany
	}
	a.passes[hashSecret(text)] = pass{account, now.Add(passLife)}
	return text, now.Add(passLife), nil
}

// spendPass returns the account of a pass, which is gone then.
func (b *Broker) spendPass(text string) (account string, ok bool) {
	a := b.accounts
	a.mu.Lock()
	defer a.mu.Unlock()
	hash := hashSecret(text)
	p, known := a.passes[hash]
	delete(a.passes, hash)
	return p.account, known && !b.now().After(p.until)
}
