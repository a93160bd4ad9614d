package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"claudemesh/mesh"
)

// HTTPBase is the address of a broker's HTTP side: the WebSocket URL with the scheme changed and without "/ws". The error says what is wrong with the URL.
func HTTPBase(brokerURL string) (string, error) {
	u, err := url.Parse(brokerURL)
	if err != nil {
		return "", fmt.Errorf("broker url: %w", err)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	default:
		return "", fmt.Errorf("a broker url begins with ws:// or wss://, not %q", brokerURL)
	}
	if u.Host == "" || u.User != nil {
		return "", fmt.Errorf("broker url %q names no host, or carries a password", brokerURL)
	}
	return u.Scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/ws"), nil
}

// Request is one HTTP request to a mesh's broker, signed with the member's key (mesh.HTTPAuth).
type Request struct {
	Method string
	Target string // path and query, beginning with "/"
	Header http.Header
	Body   io.Reader // nil for none
	Size   int64     // of Body in bytes; -1 when it is not known
	SHA256 string    // of Body, hex; may be empty when there is no body
}

// HTTP sends a request to the broker, reaching it the way the links do; redirects are not followed. The caller closes the answer's body. The error has no
// request line in it, and is ctx's when that ended.
func (m *Mesh) HTTP(ctx context.Context, r Request) (*http.Response, error) {
	base, err := HTTPBase(m.cfg.BrokerURL)
	if err != nil {
		return nil, err
	}
	if r.SHA256 == "" {
		sum := sha256.Sum256(nil)
		r.SHA256 = hex.EncodeToString(sum[:])
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, base+r.Target, r.Body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	if r.Body != nil {
		req.ContentLength = r.Size
	}
	// The signature covers the target as the broker sees it, a path prefix of the base included.
	req.Header.Set("Authorization", mesh.SignHTTP(m.cfg.Member, r.Method, req.URL.RequestURI(), m.cfg.MeshID, r.SHA256, m.member.cfg.Clock.Now()))
	// A request that says Expect: 100-continue is refused before its body is sent; a broker that knows nothing of that gets the body after a moment.
	transport := &http.Transport{DialContext: m.cfg.Dial, DisableKeepAlives: true, ExpectContinueTimeout: 2 * time.Second}
	if m.cfg.TLS != nil {
		if transport.TLSClientConfig, err = m.cfg.TLS(); err != nil {
			return nil, err
		}
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, withoutLine(err)
	}
	return res, nil
}
