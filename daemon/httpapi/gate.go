package httpapi

import (
	"encoding/hex"
	"net"
	"net/http"
	"path"
	"strings"

	"claudemesh/bus"
)

// The gate is what a request must pass before anything is done for it. Order matters: what a web page can send is turned away before a token is looked at.

// gate serves the requests of one listener.
func (s *Server) gate(own bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := clean(r); err != nil {
			fail(w, err)
			return
		}
		token, err := tokenOf(r)
		switch {
		case err != nil:
			fail(w, err)
			return
		case token != "":
		case own:
			token = s.cfg.UserToken
		case s.cfg.PublicHealth && r.URL.Path == "/v1/health" && r.Method == http.MethodGet:
			answer(w, http.StatusOK, map[string]any{"ok": true})
			return
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="claudemesh"`)
			fail(w, refusal(401, "missing_token", "say who you are: Authorization: Bearer TOKEN, the token is in the file local-token of the daemon directory"))
			return
		}
		s.dispatch(w, r, token)
	})
}

// dispatch connects the caller and finds the route.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, token string) {
	c, err := s.callers.take(r.Context(), token)
	if err != nil {
		fail(w, err)
		return
	}
	defer s.callers.put(c)
	ctx := bus.WithTrace(withCaller(r.Context(), c), r.Header.Get("traceparent"))
	s.mux.ServeHTTP(w, r.WithContext(ctx))
}

// clean refuses what no script sends: the requests of web pages, those for another host (a name that was made to point here), and secrets in a URL.
func clean(r *http.Request) error {
	if !localHost(r.Host) {
		return refusal(403, "forbidden_host", "this is for programs of this machine: ask for localhost or 127.0.0.1")
	}
	if len(r.Header.Values("Origin")) > 0 || r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return refusal(403, "forbidden_origin", "web pages may not ask here")
	}
	if r.URL.Query().Has("token") {
		return refusal(400, "token_in_url", "a token does not belong into a URL, which logs keep: send it as Authorization: Bearer TOKEN")
	}
	// The multiplexer would answer these with a redirect, which a script follows without its token.
	if p := r.URL.Path; p == "" || p[0] != '/' || path.Clean(p) != p {
		return refusal(404, "not_found", "there is no such path")
	}
	return nil
}

// localHost reports whether a Host header means this machine. It is empty or anything curl makes of a Unix socket's URL, which should be localhost.
func localHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	switch strings.ToLower(strings.Trim(name, "[]")) {
	case "", "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

// tokenOf is the token that a request carries: Bearer, or the reference's ClaudeMesh-Session. None is no error; one that cannot be a token is.
func tokenOf(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", nil
	}
	bad := refusal(401, "invalid_token", "Authorization is one header: Bearer TOKEN or ClaudeMesh-Session TOKEN, 64 hex digits")
	if len(values) > 1 {
		return "", bad
	}
	scheme, token, ok := strings.Cut(strings.TrimSpace(values[0]), " ")
	token = strings.ToLower(strings.TrimSpace(token))
	if !ok || !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "ClaudeMesh-Session") || !isToken(token) {
		return "", bad
	}
	return token, nil
}

func isToken(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}
