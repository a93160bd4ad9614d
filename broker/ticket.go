package broker

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"claudemesh/wire"
)

// A client that asks for a file gets a URL that works without any header, as the reference gives one of its object store: the way of the file on this broker
// with a ticket in it. A ticket is a bearer secret, valid for a minute and for one request; the broker remembers its hash, in memory.
const (
	ticketLife = time.Minute
	maxTickets = 4096 // the oldest goes first
)

type ticket struct {
	viewer  fileViewer
	file    string
	expires time.Time
}

// fileURL makes a ticket.
func (b *Broker) fileURL(v fileViewer, id string) (string, error) {
	base, err := b.httpBase()
	if err != nil {
		return "", err
	}
	var raw [32]byte
	if _, err := io.ReadFull(b.cfg.Rand, raw[:]); err != nil {
		return "", fmt.Errorf("make ticket: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString(raw[:])
	b.files.tickets.Add(sha256.Sum256([]byte(text)), ticket{viewer: v, file: id, expires: b.now().Add(ticketLife)})
	return base + "/download/" + id + "/" + text, nil
}

// httpBase is the address of this broker's HTTP side for clients: its public URL with the scheme changed and without "/ws".
func (b *Broker) httpBase() (string, error) {
	u, err := url.Parse(b.cfg.PublicURL)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("the broker has no usable public url: %q", b.cfg.PublicURL)
	}
	scheme := "http"
	if u.Scheme == "wss" {
		scheme = "https"
	}
	return scheme + "://" + u.Host + strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/ws"), nil
}

// redeem serves a file to whoever holds the ticket. The rights of the member it was made for are checked again.
func (b *Broker) redeemTicket(w http.ResponseWriter, r *http.Request) {
	key := sha256.Sum256([]byte(r.PathValue("ticket")))
	t, ok := b.files.tickets.Peek(key)
	// Removing it is what makes it one-time: of two requests one gets it.
	ok = ok && r.Method == http.MethodGet && t.file == r.PathValue("fileId") && b.files.tickets.Remove(key) && b.now().Before(t.expires)
	if !ok {
		refuseHTTP(w, &httpRefusal{http.StatusNotFound, "this link was used already, or is too old"})
		return
	}
	b.mu.RLock()
	who := caller{role: t.viewer.mesh.roleOf(t.viewer.member)}
	b.mu.RUnlock()
	if no := who.allowed(routeTicket, true); no != nil {
		refuseHTTP(w, &httpRefusal{http.StatusForbidden, wire.CodeForbidden})
		return
	}
	b.sendFile(w, r, t.viewer, t.file, nil) // get_file has noted it
}
