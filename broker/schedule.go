package broker

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// scheduleRecord is a message that waits for its time, under schedule.MESHID.ID in CM_DATA. Due is when it is sent next. Either Message or Nonce and
// Ciphertext is set.
type scheduleRecord struct {
	ID           string `json:"id"`
	MemberID     string `json:"member_id"`
	MemberPubkey string `json:"member_pubkey"`
	SessionKey   string `json:"session_key,omitempty"` // of the session that made it
	Name         string `json:"name"`                  // of whoever made it, then
	To           string `json:"to"`
	Subtype      string `json:"subtype,omitempty"`
	Message      string `json:"message,omitempty"`
	Nonce        string `json:"nonce,omitempty"`
	Ciphertext   string `json:"ciphertext,omitempty"`
	Due          int64  `json:"due"`
	CreatedAt    int64  `json:"created_at"`
	Cron         string `json:"cron,omitempty"`
	Zone         string `json:"zone,omitempty"`
	Fired        int    `json:"fired,omitempty"`
	Order        uint64 `json:"order"` // counts up, in the order of the requests
}

const scheduleFamily = "schedule"

func scheduleKey(meshID, id string) string { return recordKey(scheduleFamily, meshID, recordName(id)) }

// scheduleHorizon is how far ahead a message may be scheduled.
const scheduleHorizon = 5 * 366 * 24 * time.Hour

func (c *conn) schedule(data []byte, reqID string) {
	var f wire.Schedule
	if !c.decode(data, reqID, &f) {
		return
	}
	rec, no := c.composeSchedule(f)
	if no == nil {
		no = c.b.timers.add(c.mesh.rec.ID, rec)
	}
	if no != nil {
		c.fail(reqID, no.code, no.message)
		return
	}
	c.reply(wire.ScheduledAck{Type: wire.TypeScheduledAck, ScheduledID: rec.ID, DeliverAt: rec.Due, Cron: rec.Cron, ReqID: reqID})
	c.b.timers.poke() // after the answer: what is due at once must not overtake it
}

// composeSchedule makes the record of a request, or says why not.
func (c *conn) composeSchedule(f wire.Schedule) (rec scheduleRecord, no *refusal) {
	invalid := func(format string, args ...any) *refusal {
		return refused(wire.CodeInvalid, fmt.Sprintf(format, args...))
	}
	_, _, multicast := isMulticast(f.To)
	switch {
	case !multicast && !mesh.ValidKey(f.To):
		return rec, invalid("a scheduled message goes to a key, a group or *, not to %.64q", f.To)
	case multicast && f.Ciphertext != "":
		return rec, invalid("only a message to a key can be sealed")
	case f.Subtype != "" && f.Subtype != wire.SubtypeReminder:
		return rec, invalid("subtype must be reminder or nothing")
	}
	if no := c.maySend(f.To); no != nil && f.To != c.routingKey() {
		return rec, no
	}
	now := c.b.now()
	id, err := uuid.NewRandomFromReader(c.b.cfg.Rand)
	if err != nil {
		c.log.Error("schedule refused", "err", err)
		return rec, refused(wire.CodeInternal, "internal error")
	}
	rec = scheduleRecord{
		ID: id.String(), MemberID: c.member.ID, MemberPubkey: c.member.Pubkey, SessionKey: c.sessionKey, Name: c.name, To: f.To, Subtype: wire.SubtypeReminder,
		Message: f.Message, Nonce: f.Nonce, Ciphertext: f.Ciphertext, CreatedAt: now.UnixMilli(), Cron: f.Cron, Zone: f.Zone,
	}
	if f.Cron == "" {
		rec.Zone = ""
		if f.DeliverAt > float64(now.Add(scheduleHorizon).UnixMilli()) {
			return rec, invalid("deliverAt is more than five years ahead")
		}
		rec.Due = max(int64(f.DeliverAt), 0)
		return rec, nil
	}
	due, err := nextDue(rec, now)
	switch {
	case errors.Is(err, errBadZone):
		return rec, invalid("%v", err)
	case err != nil:
		return rec, refused(wire.CodeInvalidCron, "Invalid cron expression: "+f.Cron)
	}
	rec.Due = due
	return rec, nil
}

// nextDue is the next time of a cron, in Unix milliseconds.
func nextDue(rec scheduleRecord, after time.Time) (int64, error) {
	expr, err := parseCron(rec.Cron)
	if err != nil {
		return 0, err
	}
	l, err := zone(rec.Zone)
	if err != nil {
		return 0, err
	}
	t, err := expr.next(after.In(l))
	return t.UnixMilli(), err
}

func (c *conn) listScheduled(_ []byte, reqID string) {
	out := wire.ScheduledList{Type: wire.TypeScheduledList, Messages: []wire.Scheduled{}, ReqID: reqID}
	all := c.b.timers.list(c.mesh.rec.ID, c.member.ID)
	for _, rec := range all {
		s := wire.Scheduled{
			ID: rec.ID, To: rec.To, Message: rec.Message, DeliverAt: rec.Due, CreatedAt: rec.CreatedAt, Cron: rec.Cron, Zone: rec.Zone,
			Nonce: rec.Nonce, Ciphertext: rec.Ciphertext, Sealed: rec.Ciphertext != "",
		}
		if rec.Cron != "" {
			s.FiredCount = &rec.Fired
		}
		if s.Sealed {
			s.SenderPubkey = rec.SessionKey
			if s.SenderPubkey == "" {
				s.SenderPubkey = rec.MemberPubkey
			}
		}
		out.Messages = append(out.Messages, shorten(s, listRoom/len(all)))
	}
	c.reply(out)
}

// listRoom is what the texts of one list may take of its frame; everything else of an entry has less than a kilobyte.
const listRoom = wire.MaxFrameBytes * 3 / 4

// shorten cuts what does not fit, and says so. JSON makes up to six bytes of one. A box that is cut could not be opened, so it goes as a whole.
func shorten(s wire.Scheduled, room int) wire.Scheduled {
	if len(s.Ciphertext) > room {
		s.Nonce, s.Ciphertext, s.Truncated = "", "", true
	}
	if most := room / 6; len(s.Message) > most {
		for most > 0 && s.Message[most]&0xc0 == 0x80 { // not inside of a character
			most--
		}
		s.Message, s.Truncated = s.Message[:most], true
	}
	return s
}

func (c *conn) cancelScheduled(data []byte, reqID string) {
	var f wire.CancelScheduled
	if !c.decode(data, reqID, &f) {
		return
	}
	owner, known := c.b.timers.owner(c.mesh.rec.ID, f.ScheduledID)
	if known {
		if no := c.mayTouch(wire.TypeCancelScheduled, owner == c.member.ID); no != nil {
			c.fail(reqID, no.code, no.message)
			return
		}
	}
	ok, err := c.b.timers.cancel(c.mesh.rec.ID, f.ScheduledID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeCancelScheduled, err)
		return
	}
	c.reply(wire.CancelScheduledAck{Type: wire.TypeCancelScheduledAck, ScheduledID: f.ScheduledID, OK: ok, ReqID: reqID})
}

// text is what a record carries as ciphertext: the box, or the base64 of its plain text.
func (r scheduleRecord) text() string {
	if r.Ciphertext != "" {
		return r.Ciphertext
	}
	return base64.StdEncoding.EncodeToString([]byte(r.Message))
}
