package broker

import (
	"io"
	"net/http"
)

// Handler serves the broker's HTTP side and the WebSocket at /ws; everything else is 404 "not found". No answer carries a CORS header, and WebSockets are
// refused to pages of other origins: no browser has business here.
func (b *Broker) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", b.serveWS)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { b.health(w) })
	mux.HandleFunc("POST /join", b.serveJoin)
	mux.HandleFunc(routeHook, b.serveHook)
	mux.HandleFunc("POST /cli/mesh/create", b.serveCreate)
	mux.HandleFunc(b.signed(routeUpload, b.upload))
	mux.HandleFunc(b.signed(routeDownload, b.download))
	mux.HandleFunc(routeTicket, b.redeem)
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
