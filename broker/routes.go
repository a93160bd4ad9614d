package broker

import (
	"io"
	"net/http"
	"strings"
)

// The routes for members; each has a row in rules.
const (
	routeMeshes = "GET /cli/meshes"
	routeInvite = "POST /cli/mesh/{slug}/invite"
	routeRename = "PATCH /api/cli/meshes/{slug}"
	routeDelete = "DELETE /cli/mesh/{slug}"
)

// Handler serves the broker's HTTP side and the WebSocket at /ws; everything else is 404 "not found". No answer carries a CORS header, and WebSockets are
// refused to pages of other origins: no browser has business here but on the two pages, of an invite and of a machine that wants to be signed in.
func (b *Broker) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", b.serveWS)
	mux.HandleFunc("GET /health", b.health)
	mux.HandleFunc("GET /health/ready", b.ready)
	mux.HandleFunc("GET /metrics", b.operators(b.serveMetrics))
	mux.HandleFunc("GET /status", b.operators(b.serveStatus))
	mux.HandleFunc("POST /join", b.serveJoin)
	mux.HandleFunc(routeHook, b.serveHook)
	mux.HandleFunc("POST /cli/mesh/create", b.serveCreate)
	mux.HandleFunc("GET /api/public/invite-code/{code}", b.counted(b.serveCode))
	mux.HandleFunc("GET /i/{code}", b.counted(b.serveInvitePage))
	mux.HandleFunc("POST /invites/{code}/claim", b.counted(b.serveClaim))
	mux.HandleFunc("POST /api/public/invites/{code}/claim", b.counted(b.serveClaim))
	_, meshesOfMember := b.signed(routeMeshes, b.serveMeshes)
	mux.HandleFunc(routeMeshes, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			b.withSession(b.serveAccountMeshes)(w, r)
			return
		}
		meshesOfMember(w, r)
	})
	b.accountRoutes(mux)
	mux.HandleFunc(b.signed(routeInvite, b.serveInvite))
	mux.HandleFunc(b.signed(routeRename, b.serveRename))
	mux.HandleFunc(b.signed(routeDelete, b.serveDelete))
	mux.HandleFunc(b.signed(routeUpload, b.upload))
	mux.HandleFunc(b.signed(routeDownload, b.download))
	mux.HandleFunc(routeTicket, b.redeemTicket)
	mux.HandleFunc("POST /hook/{mesh}/{secret}", b.serveWebhook)
	mux.HandleFunc(b.signed(routeGrants, b.serveGrants))
	mux.HandleFunc(b.signed(routeMembers, b.serveMembers))
	mux.HandleFunc(b.signed(routeMemberEdit, b.serveMemberEdit))
	mux.HandleFunc(b.signed(routeMeshSettings, b.serveMeshSettings))
	mux.HandleFunc(b.bearer(routeV1Members, b.v1Members))
	mux.HandleFunc(b.bearer(routeV1Peers, b.v1Peers))
	mux.HandleFunc(b.bearer(routeV1Post, b.v1Post))
	mux.HandleFunc(b.bearer(routeV1Topics, b.v1Topics))
	mux.HandleFunc(b.bearer(routeV1History, b.v1History))
	mux.HandleFunc(b.bearer(routeV1Read, b.v1Read))
	mux.HandleFunc(b.bearer(routeV1Key, b.v1Key))
	mux.HandleFunc(b.bearer(routeV1Stream, b.v1Stream))
	mux.HandleFunc(b.bearer(routeV1State, b.v1State))
	mux.HandleFunc(b.bearer(routeV1SetState, b.v1SetState))
	mux.HandleFunc(b.bearer(routeV1Memory, b.v1Memory))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, "not found")
	})
	return mux
}
