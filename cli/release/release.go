// Package release knows which release of the program is the newest: as a release server says, and as it was heard last.
//
// The invariants it keeps: what a server says is bounded, and is a version and an address or nothing; nothing of this machine or its user is sent; and it is
// asked over TLS, or on this machine.
//
// Package cli calls it: to ask when the user wants to know, and to read what was heard when it has a moment.
package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2/maybe"
	"golang.org/x/mod/semver"
)

// Limits.
const (
	maxAnswer = 256 << 10 // a release of GitHub has its notes in it
	maxText   = 512       // of a version or an address
	timeout   = 10 * time.Second
	hops      = 3
)

// Errors of Fetch.
var (
	ErrAddress = errors.New("the address of a release server is https://, or http:// on this machine")
	ErrAnswer  = errors.New("the release server's answer names no version")
)

// Latest is the newest release.
type Latest struct {
	Version string `json:"version"`       // semantic, without "v"
	URL     string `json:"url,omitempty"` // where it is to be had; https, or empty
}

// Newer reports whether the release is newer than a version.
func (l Latest) Newer(than string) bool {
	a, b := "v"+l.Version, "v"+than
	return semver.IsValid(a) && semver.IsValid(b) && semver.Compare(a, b) > 0
}

// Fetch asks a release server: a JSON object with version and url, or with GitHub's tag_name and html_url.
func Fetch(ctx context.Context, address string) (Latest, error) {
	u, err := url.Parse(address)
	if err != nil || !allowed(u) {
		return Latest{}, ErrAddress
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Latest{}, fmt.Errorf("ask release server: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "claudemesh")
	client := http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > hops || !allowed(r.URL) {
			return ErrAddress
		}
		return nil
	}}
	res, err := client.Do(req)
	if err != nil {
		return Latest{}, fmt.Errorf("ask release server: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Latest{}, fmt.Errorf("ask release server: it says %d", res.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return Latest{}, fmt.Errorf("ask release server: %w", err)
	}
	return decode(b)
}

func allowed(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Host != "" && u.User == nil && (u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()))
}

// decode reads an answer; what is not a version is refused, what is not an address is left out.
func decode(b []byte) (Latest, error) {
	var a struct {
		Version string `json:"version"`
		URL     string `json:"url"`
		Tag     string `json:"tag_name"`
		Page    string `json:"html_url"`
	}
	if json.Unmarshal(b, &a) != nil {
		return Latest{}, ErrAnswer
	}
	if a.Tag != "" { // then url is that of the API
		a.Version, a.URL = a.Tag, a.Page
	}
	l := Latest{Version: strings.TrimPrefix(a.Version, "v")}
	if len(l.Version) > maxText || !semver.IsValid("v"+l.Version) {
		return Latest{}, ErrAnswer
	}
	if u, err := url.Parse(a.URL); err == nil && len(a.URL) <= maxText && u.Scheme == "https" && u.Host != "" && u.User == nil {
		l.URL = u.String()
	}
	return l, nil
}

// Heard is what is remembered of it. Times are Unix milliseconds.
type Heard struct {
	Latest
	AskedAt int64 `json:"asked_at,omitempty"` // when a server was asked last, with or without an answer
	ToldAt  int64 `json:"told_at,omitempty"`  // when the user was told last
}

// file is in the configuration directory.
const file = "release.json"

// Recall reads what was heard; nothing was when the file is not there, or not ours.
func Recall(dir string) Heard {
	f, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return Heard{}
	}
	defer f.Close()
	var h Heard
	b, err := io.ReadAll(io.LimitReader(f, 4*maxText))
	if err != nil || json.Unmarshal(b, &h) != nil {
		return Heard{}
	}
	if h.Version != "" {
		// It was checked before it was written, and may have been changed since.
		if h.Latest, err = decode(b); err != nil {
			return Heard{}
		}
	}
	return h
}

// Remember replaces it.
func Remember(dir string, h Heard) error {
	b, err := json.Marshal(h)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = maybe.WriteFile(filepath.Join(dir, file), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember release: %w", err)
	}
	return nil
}
