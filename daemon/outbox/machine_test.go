package outbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"pgregory.net/rapid"
)

// machine drives a real outbox and a model of it side by side and compares every row after every step. The model is the
// list of transitions of Status, the rule of Claim and nothing else.
type machine struct {
	path  string
	clock *clockwork.FakeClock
	store *Store
	rows  []*Row // by Seq
	ids   int
}

func (m *machine) now() time.Time { return time.UnixMilli(m.clock.Now().UnixMilli()) }

func (m *machine) find(mesh, cmid string) *Row {
	for _, r := range m.rows {
		if r.Mesh == mesh && r.ClientMessageID == cmid {
			return r
		}
	}
	return nil
}

func (m *machine) open(t *rapid.T) {
	s, err := Open(m.path, m.clock)
	if err != nil {
		t.Fatal(err)
	}
	m.store = s
}

func (m *machine) reopen(t *rapid.T) {
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(t)
}

func drawMesh(t *rapid.T) string { return rapid.SampledFrom([]string{"one", "two"}).Draw(t, "mesh") }

func (m *machine) drawRow(t *rapid.T) *Row {
	if len(m.rows) == 0 {
		t.Skip("no rows yet")
	}
	return rapid.SampledFrom(m.rows).Draw(t, "row")
}

func (m *machine) drawCMID(t *rapid.T) string {
	if len(m.rows) > 0 && rapid.Bool().Draw(t, "used id") {
		return m.drawRow(t).ClientMessageID
	}
	m.ids++
	return fmt.Sprintf("m%d", m.ids)
}

func (m *machine) accept(t *rapid.T) {
	n := NewRow{
		ClientMessageID: m.drawCMID(t), Mesh: drawMesh(t), Actor: "user", Kind: "dm",
		SenderKey:   rapid.SampledFrom([]string{"k1", "k2"}).Draw(t, "sender"),
		Target:      rapid.SampledFrom([]string{"bob", "carol", "K1"}).Draw(t, "target"),
		TargetSpec:  rapid.SampledFrom([]string{"", "K1", "K2"}).Draw(t, "spec"),
		Payload:     []byte(rapid.String().Draw(t, "text")),
		Fingerprint: [32]byte{rapid.ByteRange(0, 1).Draw(t, "fingerprint")},
	}
	v, err := m.store.Accept(context.Background(), n)
	if err != nil {
		t.Fatal(err)
	}
	if old := m.find(n.Mesh, n.ClientMessageID); old != nil {
		match := old.Fingerprint == n.Fingerprint && old.SenderKey == n.SenderKey
		if !v.Existing || v.Match != match || v.Row.ID != old.ID || v.Answer() != Decide(old.Status, match) {
			t.Fatalf("a used id got %+v, stored %+v", v, old)
		}
		return
	}
	if v.Existing || v.Answer().Code != 202 {
		t.Fatalf("a new id got %+v", v)
	}
	n.ID = v.Row.ID
	m.add(t, n, v.Row)
}

// add checks a freshly inserted row and takes it into the model.
func (m *machine) add(t *rapid.T, n NewRow, got Row) {
	want := Row{NewRow: n, Seq: got.Seq, Status: Pending, EnqueuedAt: m.now(), NextAttemptAt: m.now()}
	if len(m.rows) > 0 && got.Seq <= m.rows[len(m.rows)-1].Seq {
		t.Fatal("sequence numbers went back")
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("new row\n%+v, want\n%+v", got, want)
	}
	m.rows = append(m.rows, &want)
}

// claimable is the rule of Claim: due, and no earlier row of the same recipient or typed target is still waiting.
func (m *machine) claimable(mesh string, at time.Time) []*Row {
	var free []*Row
	lanes, waiting := map[string]bool{}, map[string]bool{}
	for _, r := range m.rows {
		if r.Mesh != mesh || r.Status != Pending {
			continue
		}
		late := r.NextAttemptAt.After(at)
		if late || lanes[r.Recipient()] || waiting[r.Target] {
			lanes[r.Recipient()] = true
			waiting[r.Target] = waiting[r.Target] || late
			continue
		}
		free = append(free, r)
	}
	return free
}

func (m *machine) claim(t *rapid.T) {
	mesh, limit := drawMesh(t), rapid.IntRange(1, 5).Draw(t, "limit")
	got, err := m.store.Claim(context.Background(), mesh, limit)
	if err != nil {
		t.Fatal(err)
	}
	want := m.claimable(mesh, m.now())
	want = want[:min(limit, len(want))]
	if len(got) != len(want) {
		t.Fatalf("claimed %d rows, want %d", len(got), len(want))
	}
	for i, r := range want {
		if got[i].Seq != r.Seq {
			t.Fatalf("claimed %d at place %d, want %d", got[i].Seq, i, r.Seq)
		}
		r.Status, r.Attempts = Inflight, r.Attempts+1
	}
	for _, r := range got {
		for _, e := range m.rows {
			if e.Seq < r.Seq && e.Mesh == r.Mesh && e.Recipient() == r.Recipient() && e.Status == Pending && e.Attempts == 0 {
				t.Fatalf("%d was attempted before %d, which was accepted earlier for the same recipient", r.Seq, e.Seq)
			}
		}
	}
}

func (m *machine) nextDue(t *rapid.T) {
	mesh := drawMesh(t)
	due, ok, err := m.store.NextDue(context.Background(), mesh)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		if len(m.claimable(mesh, m.now().Add(1000*time.Hour))) > 0 {
			t.Fatal("nothing is ever due although rows are pending")
		}
		return
	}
	if len(m.claimable(mesh, due)) == 0 || len(m.claimable(mesh, due.Add(-time.Millisecond))) > 0 {
		t.Fatalf("next due at %v is not when something becomes claimable", due)
	}
}

// transition applies change to the model if allowed holds, and expects ErrState otherwise.
func (m *machine) transition(t *rapid.T, r *Row, err error, allowed bool, change func()) {
	if allowed != (err == nil) || (!allowed && !errors.Is(err, ErrState)) {
		t.Fatalf("row %d is %s: %v", r.Seq, r.Status, err)
	}
	if allowed {
		change()
	}
}

func (m *machine) sent(t *rapid.T) {
	r := m.drawRow(t)
	err := m.store.Sent(context.Background(), r.ID, "B-"+r.ID)
	m.transition(t, r, err, r.Status == Inflight, func() {
		r.Status, r.BrokerMessageID, r.DeliveredAt, r.LastError = Done, "B-"+r.ID, m.now(), ""
	})
}

func (m *machine) release(t *rapid.T) {
	r := m.drawRow(t)
	next := m.now().Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "seconds")) * time.Second)
	err := m.store.Release(context.Background(), r.ID, next, "no answer")
	m.transition(t, r, err, r.Status == Inflight, func() { r.Status, r.NextAttemptAt, r.LastError = Pending, next, "no answer" })
}

func (m *machine) kill(t *rapid.T) {
	r := m.drawRow(t)
	err := m.store.Kill(context.Background(), r.ID, "refused")
	m.transition(t, r, err, r.Status == Inflight || r.Status == Pending, func() { r.Status, r.LastError = Dead, "refused" })
}

func (m *machine) resolve(t *rapid.T) {
	r := m.drawRow(t)
	spec := rapid.SampledFrom([]string{"K1", "K2"}).Draw(t, "spec")
	err := m.store.Resolved(context.Background(), r.ID, spec)
	m.transition(t, r, err, (r.Status == Inflight || r.Status == Pending) && r.TargetSpec == "", func() { r.TargetSpec = spec })
}

func (m *machine) requeue(t *rapid.T) {
	r, cmid := m.drawRow(t), m.drawCMID(t)
	got, err := m.store.Requeue(context.Background(), r.ID, cmid, "user")
	switch {
	case m.find(r.Mesh, cmid) != nil:
		if !errors.Is(err, ErrIDInUse) {
			t.Fatalf("requeue under a used id: %v", err)
		}
	case r.Status == Done || r.Status == Aborted:
		if !errors.Is(err, ErrNotRequeueable) {
			t.Fatalf("requeue of a row that is %s: %v", r.Status, err)
		}
	default:
		if err != nil {
			t.Fatal(err)
		}
		r.Status, r.AbortedAt, r.AbortedBy, r.SupersededBy = Aborted, m.now(), "user", got.ID
		n := r.NewRow
		n.ID, n.ClientMessageID = got.ID, cmid
		m.add(t, n, got)
	}
}

func (m *machine) restart(t *rapid.T) {
	m.reopen(t)
	n, err := m.store.Recover(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.rows {
		if r.Status == Inflight {
			r.Status, r.NextAttemptAt = Pending, m.now()
			n--
		}
	}
	if n != 0 {
		t.Fatalf("recovered %d rows too many", n)
	}
}

func (m *machine) wake(t *rapid.T) {
	mesh := drawMesh(t)
	if err := m.store.WakeAll(context.Background(), mesh); err != nil {
		t.Fatal(err)
	}
	for _, r := range m.rows {
		if r.Mesh == mesh && r.Status == Pending && r.NextAttemptAt.After(m.now()) {
			r.NextAttemptAt = m.now()
		}
	}
}

func (m *machine) check(t *rapid.T) {
	got, err := m.store.List(context.Background(), Filter{Limit: 10_000})
	if err != nil || len(got) != len(m.rows) {
		t.Fatalf("%d rows, want %d (%v)", len(got), len(m.rows), err)
	}
	for i, want := range m.rows {
		stored := got[len(got)-1-i]
		if !reflect.DeepEqual(stored, *want) {
			t.Fatalf("stored\n%+v, want\n%+v", stored, *want)
		}
	}
}

func TestTheOutboxBehavesLikeItsModel(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		m := &machine{path: filepath.Join(dir, fmt.Sprintf("%d.db", n)), clock: clockwork.NewFakeClockAt(start)}
		m.open(rt)
		defer func() {
			m.store.Close()
			os.Remove(m.path)
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"accept": m.accept, "accept again": m.accept, "claim": m.claim, "claim again": m.claim, "sent": m.sent,
			"release": m.release, "release again": m.release, "kill": m.kill, "resolve": m.resolve,
			"requeue": m.requeue, "restart": m.restart, "wake": m.wake, "next due": m.nextDue,
			"time passes": func(t *rapid.T) {
				m.clock.Advance(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
			},
			"": m.check,
		})
	})
}
