package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"net/http"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// httpCaller is the member behind a signed HTTP request.
type httpCaller struct {
	caller
	mesh     *meshState
	member   *member
	bodyHash string
}

// httpRefusal is an HTTP answer that refuses.
type httpRefusal struct {
	status int
	code   string // the answer's "error"
}

func (r *httpRefusal) Error() string { return r.code }

// signed serves a route for members: it checks the signature of the header (see mesh.HTTPAuth), its age, that it was not used before, and the row of the
// table. The body is not read yet: serve reads it through readSigned or checked.
func (b *Broker) signed(route string, serve func(http.ResponseWriter, *http.Request, httpCaller)) (string, http.HandlerFunc) {
	return route, func(w http.ResponseWriter, r *http.Request) {
		who, no := b.authenticate(r)
		if no == nil {
			if forbidden := who.allowed(route, true); forbidden != nil {
				no = &httpRefusal{http.StatusForbidden, forbidden.code}
			}
		}
		if no != nil {
			answer(w, no.status, map[string]any{"ok": false, "error": no.code})
			return
		}
		serve(w, r, who)
	}
}

func (b *Broker) authenticate(r *http.Request) (httpCaller, *httpRefusal) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return httpCaller{}, &httpRefusal{http.StatusUnauthorized, "missing_authorization"}
	}
	a, err := mesh.ParseHTTPAuth(header)
	if err != nil {
		return httpCaller{}, &httpRefusal{http.StatusUnauthorized, "malformed_authorization"}
	}
	limit := wire.HelloSkew.Milliseconds()
	if skew := b.now().UnixMilli() - a.Timestamp; skew > limit || skew < -limit {
		return httpCaller{}, &httpRefusal{http.StatusUnauthorized, wire.CodeTimestampSkew}
	}
	if !a.Verify(r.Method, r.RequestURI) {
		return httpCaller{}, &httpRefusal{http.StatusUnauthorized, wire.CodeBadSignature}
	}
	b.mu.RLock()
	m := b.meshes[a.MeshID]
	_, gone := b.gone[a.MeshID]
	var who *member
	role := nobody
	if m != nil {
		who = m.active(a.Pubkey)
		role = m.roleOf(who)
	}
	b.mu.RUnlock()
	if gone {
		return httpCaller{}, &httpRefusal{http.StatusGone, wire.CodeMeshDeleted}
	}
	if who == nil {
		return httpCaller{}, &httpRefusal{http.StatusUnauthorized, wire.CodeUnauthorized}
	}
	// Kept for members only, so that nobody else can push a used signature out. A read may be repeated: it changes nothing.
	if seen, _ := b.used.ContainsOrAdd(a.Signature, struct{}{}); seen && r.Method != http.MethodGet {
		return httpCaller{}, &httpRefusal{http.StatusUnauthorized, "replayed"}
	}
	return httpCaller{caller: caller{role: role}, mesh: m, member: who, bodyHash: a.BodyHash}, nil
}

// readSigned reads a signed JSON body of at most maxBody bytes.
func readSigned(w http.ResponseWriter, r *http.Request, who httpCaller, v any) *httpRefusal {
	data, err := io.ReadAll(checked(http.MaxBytesReader(w, r.Body, maxBody), who.bodyHash))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return &httpRefusal{http.StatusRequestEntityTooLarge, "body too large"}
	case errors.Is(err, errBodyHash):
		return &httpRefusal{http.StatusUnauthorized, wire.CodeBadSignature}
	case err != nil:
		return &httpRefusal{http.StatusBadRequest, "body not readable"}
	}
	if len(data) > 0 && json.Unmarshal(data, v) != nil {
		return &httpRefusal{http.StatusBadRequest, "body is not the expected JSON"}
	}
	return nil
}

var errBodyHash = errors.New("the body is not the one that was signed")

// checked is r, whose end is errBodyHash instead of io.EOF when the bytes do not have that SHA-256. What was read must not be used before the end.
func checked(r io.Reader, want string) io.Reader {
	return &hashReader{r: r, sum: sha256.New(), want: want}
}

type hashReader struct {
	r    io.Reader
	sum  hash.Hash
	want string
}

func (h *hashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(h.sum.Sum(nil)) != h.want {
		err = errBodyHash
	}
	return n, err
}
