package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"claudemesh/wire"
)

// fetcher reads what a watch looks at. A member names the address and the broker's machine makes the request, so it must not reach what only that machine
// can: every address is judged when the connection is made, after the name was looked up, for each redirect anew.
type fetcher struct {
	client *http.Client
}

const (
	fetchDeadline  = 10 * time.Second
	fetchMaxBody   = 1 << 20
	fetchRedirects = 5
	maxWatchValue  = 1024 // bytes of a value that are kept as they are
)

var (
	errPrivate   = errors.New("the address is not on the public internet, and this broker watches no others")
	errBadURL    = errors.New("not an address that can be watched")
	errBadHeader = errors.New("not a header")
	errTooLarge  = fmt.Errorf("the answer has more than %d bytes", fetchMaxBody)
)

func newFetcher(private bool) *fetcher {
	dialer := &net.Dialer{Timeout: fetchDeadline}
	if !private {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || !public(ap.Addr()) {
				return errPrivate
			}
			return nil
		}
	}
	return &fetcher{client: &http.Client{
		Timeout: fetchDeadline,
		// Of the environment nothing, no proxy either: it would make the connections, and no address could be judged.
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true},
		CheckRedirect: followRedirect,
	}}
}

// followRedirect stays with http and https, and tells another host nothing that was meant for the first.
func followRedirect(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > fetchRedirects:
		return fmt.Errorf("more than %d redirects", fetchRedirects)
	case r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.User != nil:
		return errBadURL
	case r.URL.Host != first.Host || r.URL.Scheme != first.Scheme:
		r.Header = http.Header{"User-Agent": {userAgent}}
	}
	return nil
}

const userAgent = "claudemesh-watch"

// value makes one request and returns the value that is compared.
func (f *fetcher) value(ctx context.Context, w watchRecord) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchDeadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL, nil)
	if err != nil {
		return "", errBadURL
	}
	req.Header.Set("User-Agent", userAgent)
	for k, v := range w.Headers {
		req.Header.Set(k, v)
	}
	res, err := f.client.Do(req)
	if err != nil {
		var line *url.Error // holds the URL, which may hold a secret
		if errors.As(err, &line) {
			err = line.Err
		}
		return "", fmt.Errorf("fetch: %w", err)
	}
	defer res.Body.Close()
	if w.Mode == wire.WatchStatus {
		return strconv.Itoa(res.StatusCode), nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, fetchMaxBody+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read answer: %w", err)
	case len(body) > fetchMaxBody:
		return "", errTooLarge
	case w.Mode == wire.WatchJSON && w.Extract != "":
		return bounded(extract(body, w.Extract)), nil
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])[:16], nil
}

// bounded keeps a value short; a long one still differs from any other by its hash.
func bounded(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxWatchValue {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return strings.ToValidUTF8(s[:maxWatchValue-100], "") + "… (" + strconv.Itoa(len(s)) + " bytes, sha256 " + hex.EncodeToString(sum[:16]) + ")"
}

// extract follows a dotted path of property names, as the reference does: "null" for what is missing, the first 200 characters of a body that is not JSON.
func extract(body []byte, path string) string {
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil || dec.More() {
		text := []rune(strings.ToValidUTF8(string(body), "\uFFFD"))
		return string(text[:min(len(text), 200)])
	}
	path = strings.TrimPrefix(strings.TrimPrefix(path, "$"), ".")
	for name := range strings.SplitSeq(path, ".") {
		if path == "" {
			break
		}
		switch o := v.(type) {
		case map[string]any:
			v = o[name]
		case []any:
			v = nil
			if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(o) {
				v = o[i]
			}
		default:
			v = nil
		}
	}
	switch x := v.(type) {
	case nil:
		return "null"
	case string:
		return x
	case json.Number:
		return number(x.String())
	default:
		text, err := json.Marshal(x)
		if err != nil {
			return "null"
		}
		return string(text)
	}
}

// number writes a number as JavaScript does, where that is simple: 1.0 and 1e3 are whole.
func number(text string) string {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !strings.ContainsAny(text, ".eE") || f != 0 && (math.Abs(f) < 1e-6 || math.Abs(f) >= 1e21) {
		return text
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// checkURL says whether an address can be watched, as far as that shows before a name is looked up.
func checkURL(raw string, private bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return fmt.Errorf("%w: it must be http:// or https:// and name a host", errBadURL)
	case u.User != nil:
		return fmt.Errorf("%w: a password belongs into a header", errBadURL)
	case private:
		return nil
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if ip, err := netip.ParseAddr(host); err == nil && !public(ip) || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return errPrivate
	}
	return nil
}
