package broker

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/websocket"

	"claudemesh/wire"
)

const maxBody = 64 << 10

// serveWS upgrades and serves one socket until it ends, on a goroutine of its own: what the HTTP server keeps for a request goes when this returns.
func (b *Broker) serveWS(w http.ResponseWriter, r *http.Request) {
	if !b.admitSocket() {
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
		return
	}
	ws, err := b.upgrader.Upgrade(w, r, nil)
	if err != nil { // Upgrade has answered
		b.mu.Lock()
		b.greeting--
		b.mu.Unlock()
		b.conns.Done()
		return
	}
	ctx, halt := context.WithCancel(context.Background())
	c := &conn{
		b: b, ws: ws, log: b.log, ctx: ctx, halt: halt, out: make(chan frame, outboundFrames), events: eventQueue{some: make(chan struct{}, 1)},
		readDone: make(chan struct{}), over: make(chan struct{}), since: b.now(),
	}
	b.mu.Lock()
	b.sockets[c] = struct{}{}
	b.silent = append(b.silent, c)
	closed := b.closed
	b.mu.Unlock()
	if closed {
		c.close(websocket.CloseGoingAway, reasonShutdown)
	}
	go func() {
		defer b.conns.Done()
		c.serve()
	}()
}

// admitSocket counts a socket in, as one that has not said hello yet. When there are too many of those, the one that has been silent longest makes room:
// whoever opens sockets and says nothing must not keep out those who have something to say. A moment is granted to all.
func (b *Broker) admitSocket() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.sockets) >= b.lim.Conns {
		return false
	}
	if b.greeting >= b.lim.Unauthenticated {
		if len(b.silent) == 0 || b.now().Sub(b.silent[0].since) < graceful {
			return false
		}
		oldest := b.silent[0]
		b.silent = b.silent[1:]
		b.conns.Go(func() { oldest.close(websocket.ClosePolicyViolation, "hello_timeout") })
	}
	b.greeting++
	b.conns.Add(1)
	return true
}

// spoken takes a socket off the list of the silent ones. Called under the lock.
func (b *Broker) spoken(c *conn) {
	if i := slices.Index(b.silent, c); i >= 0 {
		b.silent = slices.Delete(b.silent, i, i+1)
	}
}

func (b *Broker) serveJoin(w http.ResponseWriter, r *http.Request) {
	var req wire.JoinRequest
	if status, problem := readBody(w, r, &req); problem != "" {
		answer(w, status, wire.JoinReply{Error: problem})
		return
	}
	// Not the request's context: a client that goes away must not leave a use counted and nobody enrolled.
	ctx, cancel := b.deadline()
	defer cancel()
	id, already, err := b.join(ctx, req)
	var no joinRefused
	switch {
	case errors.As(err, &no):
		answer(w, http.StatusBadRequest, wire.JoinReply{Error: string(no)})
	case err != nil:
		b.log.Error("join failed", "err", err)
		answer(w, http.StatusInternalServerError, wire.JoinReply{Error: "internal"})
	default:
		answer(w, http.StatusOK, wire.JoinReply{OK: true, MemberID: id, AlreadyMember: already})
	}
}

func (b *Broker) serveCreate(w http.ResponseWriter, r *http.Request) {
	if status, problem := b.authorize(r); problem != "" {
		if status == http.StatusForbidden {
			problem = "mesh_create_disabled"
		}
		answer(w, status, wire.CreateMeshReply{Error: problem})
		return
	}
	var req wire.CreateMeshRequest
	if status, problem := readBody(w, r, &req); problem != "" {
		answer(w, status, wire.CreateMeshReply{Error: problem})
		return
	}
	if strings.TrimSpace(req.Name) == "" {
		answer(w, http.StatusBadRequest, wire.CreateMeshReply{Error: "name required"})
		return
	}
	m, err := b.CreateMesh(r.Context(), req.Name, req.Pubkey, req.DisplayName)
	switch {
	case errors.Is(err, ErrBadKey):
		answer(w, http.StatusBadRequest, wire.CreateMeshReply{Error: "pubkey required (64 hex chars)"})
	case errors.Is(err, ErrBadName):
		answer(w, http.StatusBadRequest, wire.CreateMeshReply{Error: "name not usable"})
	case errors.Is(err, ErrFull):
		answer(w, http.StatusConflict, wire.CreateMeshReply{Error: "mesh_limit_reached"})
	case err != nil:
		b.log.Error("mesh not created", "err", err)
		answer(w, http.StatusInternalServerError, wire.CreateMeshReply{Error: "internal"})
	default:
		answer(w, http.StatusOK, wire.CreateMeshReply{ID: m.ID, Slug: m.Slug, Name: m.Name, MemberID: m.MemberID})
	}
}

// authorize checks the admin token in constant time; problem is "" when it is right.
func (b *Broker) authorize(r *http.Request) (status int, problem string) {
	if b.cfg.AdminTokenHash == [32]byte{} {
		return http.StatusForbidden, "admin_disabled"
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !ok:
		return http.StatusUnauthorized, "missing_bearer_token"
	case token == "":
		return http.StatusUnauthorized, "empty_bearer_token"
	}
	if !b.isAdminToken(token) {
		return http.StatusUnauthorized, "invalid_or_revoked_token"
	}
	return 0, ""
}

// isAdminToken compares in constant time. A broker without one knows none.
func (b *Broker) isAdminToken(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return b.cfg.AdminTokenHash != [32]byte{} && subtle.ConstantTimeCompare(sum[:], b.cfg.AdminTokenHash[:]) == 1
}

// readBody reads a JSON body of at most maxBody bytes; readPost one that can hold a message.
func readBody(w http.ResponseWriter, r *http.Request, v any) (status int, problem string) {
	return readJSON(w, r, maxBody, v)
}

func readPost(w http.ResponseWriter, r *http.Request, v any) (status int, problem string) {
	return readJSON(w, r, maxBody+wire.MaxSendBytes, v)
}

func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) (status int, problem string) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return http.StatusRequestEntityTooLarge, "body too large"
	case err != nil:
		return http.StatusBadRequest, "body not readable"
	}
	if err := json.Unmarshal(data, v); err != nil {
		return http.StatusBadRequest, "body is not the expected JSON"
	}
	return 0, ""
}

func answer(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(data)
}
