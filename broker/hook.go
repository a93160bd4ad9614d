package broker

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"claudemesh/wire"
)

// routeHook takes the status of a session from a program that runs beside it and has no connection of its own.
const routeHook = "POST /hook/set-status"

const (
	hookRate     = 30               // a minute, per member; unsigned ones per process and directory
	hookPending  = 10 * time.Second // a status that comes before its session waits so long
	hooksPerMesh = 64               // of those; further ones push the oldest out
)

// hookRequest is the body. PID and SessionID find the session: the id first, then directory and process, then the directory alone.
type hookRequest struct {
	Cwd       string `json:"cwd"`
	Status    string `json:"status"`
	PID       int64  `json:"pid"`
	SessionID string `json:"session_id"`
}

type hookReply struct {
	OK         bool   `json:"ok"`
	PresenceID string `json:"presence_id,omitempty"`
	Pending    bool   `json:"pending,omitempty"`
	Error      string `json:"error,omitempty"`
	Message    string `json:"message,omitempty"`
}

// hookStatus is one that waits. member nil: of any.
type hookStatus struct {
	member *member
	pid    int64
	cwd    string
	status string
	at     time.Time
}

// serveHook takes a signed report of a member about its own sessions; an unsigned one only from this machine, and only if that was allowed.
func (b *Broker) serveHook(w http.ResponseWriter, r *http.Request) {
	var req hookRequest
	var who *httpCaller
	if r.Header.Get("Authorization") != "" || !b.cfg.AllowHook || !local(r) {
		caller, no := b.authenticate(r)
		if no == nil {
			if forbidden := caller.allowed(routeHook, true); forbidden != nil {
				no = &httpRefusal{http.StatusForbidden, forbidden.code}
			} else {
				no = readSigned(w, r, caller, &req)
			}
		}
		if no != nil {
			reply := hookReply{Error: no.code}
			if no.code == "missing_authorization" {
				reply.Message = "this broker takes a status only from the member itself: sign the request, or set it over the connection"
			}
			answer(w, no.status, reply)
			return
		}
		who = &caller
	} else if status, problem := readHook(w, r, &req); problem != "" {
		answer(w, status, hookReply{Error: problem})
		return
	}
	switch {
	case req.Cwd == "" || req.Status == "":
		answer(w, http.StatusOK, hookReply{Error: "cwd and status required"})
		return
	case wire.SetStatus{Status: req.Status}.Validate() != nil:
		answer(w, http.StatusBadRequest, hookReply{Error: "status must be idle, working or dnd"})
		return
	case len(req.Cwd) > wire.MaxTextBytes || len(req.SessionID) > wire.MaxIDBytes:
		answer(w, http.StatusBadRequest, hookReply{Error: "cwd or session_id too long"})
		return
	}
	key := strconv.FormatInt(req.PID, 10) + ":" + req.Cwd
	if who != nil {
		key = who.member.ID
	}
	if !b.hooks.allow(key, b.now()) {
		answer(w, http.StatusTooManyRequests, hookReply{Error: "rate limited"})
		return
	}
	reply, c := b.report(req, who)
	if c != nil {
		c.drain()
	}
	answer(w, http.StatusOK, reply)
}

// readHook is readBody for a hook, which the reference answers in its own form.
func readHook(w http.ResponseWriter, r *http.Request, req *hookRequest) (status int, problem string) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return http.StatusRequestEntityTooLarge, "body too large"
	case err != nil || json.Unmarshal(data, req) != nil:
		return http.StatusBadRequest, "body is not the expected JSON"
	}
	return 0, ""
}

// local reports whether a request comes from this machine and not through a proxy on it.
func local(r *http.Request) bool {
	if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// report sets the status of the session meant, or keeps it for the one that is just coming. It returns the connection whose mail may go out now. Who wants
// no disturbance has said so by hand, and only takes it back by hand.
func (b *Broker) report(req hookRequest, who *httpCaller) (hookReply, *conn) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	var found *conn
	for _, m := range b.meshes {
		if who != nil && m != who.mesh {
			continue
		}
		for c := range m.conns {
			if (who == nil || c.member == who.member) && req.fits(c) && (found == nil || req.better(c, found)) {
				found = c
			}
		}
	}
	if found != nil {
		if found.status != wire.StatusDND {
			found.become(req.Status, byHook, now)
		}
		return hookReply{OK: true, PresenceID: found.presenceID}, found
	}
	h := hookStatus{pid: req.PID, cwd: req.Cwd, status: req.Status, at: now}
	for _, m := range b.meshes {
		switch {
		case who == nil:
			m.keepHook(h)
		case m == who.mesh:
			h.member = who.member
			m.keepHook(h)
		}
	}
	return hookReply{OK: true, Pending: true}, nil
}

func (h hookRequest) fits(c *conn) bool {
	return c.place.cwd == h.Cwd || h.SessionID != "" && c.sessionID == h.SessionID
}

// better reports whether c is rather meant than d; both fit.
func (h hookRequest) better(c, d *conn) bool {
	rank := func(c *conn) int {
		switch {
		case h.SessionID != "" && c.sessionID == h.SessionID:
			return 2
		case c.place.pid == h.PID:
			return 1
		}
		return 0
	}
	if rank(c) != rank(d) {
		return rank(c) > rank(d)
	}
	return c.since.After(d.since)
}

// keepHook remembers a status; the newest of a process and directory wins. Called under the lock.
func (m *meshState) keepHook(h hookStatus) {
	m.hooks = slices.DeleteFunc(m.hooks, func(o hookStatus) bool {
		return h.at.Sub(o.at) > hookPending || o.member == h.member && o.pid == h.pid && o.cwd == h.cwd
	})
	if len(m.hooks) >= hooksPerMesh {
		m.hooks = slices.Delete(m.hooks, 0, 1)
	}
	m.hooks = append(m.hooks, h)
}

// applyHook gives a new connection the status that was reported just before it came. Called under the lock.
func (m *meshState) applyHook(c *conn, now time.Time) {
	for i := len(m.hooks) - 1; i >= 0; i-- {
		h := m.hooks[i]
		if h.pid == c.place.pid && h.cwd == c.place.cwd && (h.member == nil || h.member == c.member) {
			m.hooks = slices.Delete(m.hooks, i, i+1)
			if now.Sub(h.at) <= hookPending {
				c.become(h.status, byHook, now)
			}
			return
		}
	}
}
