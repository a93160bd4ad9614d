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
	mux.HandleFunc("POST /hook/{mesh}/{secret}", b.serveWebhook)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, "not found")
	})
	return mux
}
