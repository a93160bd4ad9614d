package broker

import (
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"claudemesh/wire"
)

// watchRecord is a watch, under watch.MESHID.ID in CM_DATA. Interval is in seconds. Value, once Checked (Unix milliseconds) is not 0, is what was found and
// told last; Told counts the notifications. Headers may hold secrets and leave the broker towards URL only.
type watchRecord struct {
	ID           string            `json:"id"`
	MemberID     string            `json:"member_id"`
	MemberPubkey string            `json:"member_pubkey"`
	URL          string            `json:"url"`
	Mode         string            `json:"mode"`
	Extract      string            `json:"extract,omitempty"`
	Interval     int               `json:"interval"`
	NotifyOn     string            `json:"notify_on"`
	Headers      map[string]string `json:"headers,omitempty"`
	Label        string            `json:"label,omitempty"`
	CreatedAt    int64             `json:"created_at"`
	Value        string            `json:"value,omitempty"`
	Checked      int64             `json:"checked,omitempty"`
	Told         int               `json:"told,omitempty"`
	Order        uint64            `json:"order"` // counts up, in the order of the requests
}

const watchFamily = "watch"

func watchKey(meshID, id string) string { return recordKey(watchFamily, meshID, recordName(id)) }

func (c *conn) watch(data []byte, reqID string) {
	var f wire.Watch
	if !c.decode(data, reqID, &f) {
		return
	}
	if err := errors.Join(checkURL(f.URL, c.b.cfg.AllowPrivateWatches), checkHeaders(f.Headers)); err != nil {
		code := wire.CodeInvalid
		if errors.Is(err, errPrivate) {
			code = wire.CodePrivateAddress
		}
		c.fail(reqID, code, err.Error())
		return
	}
	rec := watchRecord{
		MemberID: c.member.ID, MemberPubkey: c.member.Pubkey, URL: f.URL, Mode: f.Mode, Extract: f.Extract, Interval: wire.DefaultWatchEvery,
		NotifyOn: f.NotifyOn, Headers: f.Headers, Label: f.Label, CreatedAt: c.b.now().UnixMilli(),
	}
	if f.Interval > 0 {
		rec.Interval = max(int(f.Interval), wire.MinWatchInterval)
	}
	if rec.Mode == "" {
		rec.Mode = wire.WatchHash
	}
	if rec.NotifyOn == "" || rec.NotifyOn == "changed" {
		rec.NotifyOn = wire.NotifyChange
	}
	id, no := c.b.watches.add(c.mesh.rec.ID, rec)
	if no != nil {
		c.fail(reqID, no.code, no.message)
		return
	}
	c.reply(wire.WatchAck{Type: wire.TypeWatchAck, WatchID: id, URL: rec.URL, Mode: rec.Mode, Interval: rec.Interval, ReqID: reqID})
}

// checkHeaders refuses what is no header, and those that belong to the connection and not to the request.
func checkHeaders(headers map[string]string) error {
	for k, v := range headers {
		switch name := textproto.CanonicalMIMEHeaderKey(k); {
		case k == "" || strings.ContainsFunc(k, func(r rune) bool { return !tokenChar(r) }):
			return fmt.Errorf("%w: %.64q is no name of one", errBadHeader, k)
		case strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return fmt.Errorf("%w: %s holds a control character", errBadHeader, name)
		case slices.Contains([]string{
			"Host", "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
			"Transfer-Encoding", "Upgrade", "Content-Length", "Content-Encoding", "Expect",
		}, name), strings.HasPrefix(name, "Sec-"):
			return fmt.Errorf("%w: %s is not for a watch to set", errBadHeader, name)
		}
	}
	return nil
}

func tokenChar(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r < 0x7f && strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func (c *conn) unwatch(data []byte, reqID string) {
	var f wire.Unwatch
	if !c.decode(data, reqID, &f) {
		return
	}
	ack := wire.WatchAck{Type: wire.TypeWatchAck, WatchID: f.WatchID, ReqID: reqID}
	if w := c.b.watches.find(c.mesh.rec.ID, f.WatchID); w != nil {
		if no := c.mayTouch(wire.TypeUnwatch, w.spec.MemberID == c.member.ID); no != nil {
			c.fail(reqID, no.code, no.message)
			return
		}
		if err := c.b.watches.remove(w); err != nil {
			c.storeFailed(reqID, wire.TypeUnwatch, err)
			return
		}
		ack.URL, ack.Mode = w.spec.URL, w.spec.Mode
	}
	c.reply(ack)
}

func (c *conn) watchList(_ []byte, reqID string) {
	out := wire.WatchListResult{Type: wire.TypeWatchListResult, Watches: []wire.WatchInfo{}, ReqID: reqID}
	for _, w := range c.b.watches.of(c.mesh.rec.ID, c.member.ID) {
		out.Watches = append(out.Watches, w.info())
	}
	c.reply(out)
}

// notifies decides whether a value is news. Of the first one there is nothing to tell.
func (r watchRecord) notifies(value string) bool {
	switch want, ok := strings.CutPrefix(r.NotifyOn, wire.NotifyMatch); {
	case r.Checked == 0:
		return false
	case ok:
		return value == want && r.Value != want
	}
	switch not, ok := strings.CutPrefix(r.NotifyOn, wire.NotifyNotMatch); {
	case ok:
		return value != not && r.Value == not
	case r.NotifyOn == wire.NotifyAlways:
		return true
	}
	return value != r.Value
}

func (w *watch) info() wire.WatchInfo {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := wire.WatchInfo{
		ID: w.spec.ID, URL: w.spec.URL, Mode: w.spec.Mode, Label: w.spec.Label, Interval: w.spec.Interval, NotifyOn: w.spec.NotifyOn,
		LastHash: w.rec.Value, LastValue: w.rec.Value, CreatedAt: wire.Timestamp(unixMilli(w.spec.CreatedAt)), Error: w.problem,
	}
	if !w.checked.IsZero() {
		i.LastCheck = wire.Timestamp(w.checked)
	}
	return i
}

// interval is the time to the next check: up to a tenth less than what was asked for, so that watches made together do not stay together. random is a
// number from 0 to 255.
func (r watchRecord) interval(random byte) time.Duration {
	d := time.Duration(r.Interval) * time.Second
	return d - d/10*time.Duration(random)/256
}
