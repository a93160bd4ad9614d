package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"claudemesh/bus"
	"claudemesh/daemon/inbox"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
)

// trust remembers which member key each display name of a mesh was first met with, as ssh remembers hosts: who takes another's name is noticed. Names are
// met as senders of messages that could be read, and as recipients that somebody here chose. What is kept is bounded, and no member can push out what is known
// of another: each has room for maxNamesOfMember, of which it loses its own oldest.
type trust struct {
	m *meshRun

	mu       sync.Mutex
	loaded   bool
	names    map[string][]session.Known // by folded name
	first    map[string]time.Time       // by member key: when it was first met
	count    map[string]int             // by member key: names
	verified map[string]time.Time       // by member key
}

const (
	maxNamesOfMember = 200
	touchNames       = 24 * time.Hour // how exact the time of the last contact is
)

func newTrust(m *meshRun) *trust { return &trust{m: m} }

// foldName is the form in which names are compared.
func foldName(name string) string { return strings.ToLower(strings.TrimSpace(printable(name))) }

// load reads the store once. The caller holds mu.
func (t *trust) load(ctx context.Context) error {
	if t.loaded {
		return nil
	}
	known, err := t.m.d.session.KnownNames(ctx, t.m.joined.Slug)
	if err != nil {
		return err
	}
	verified, err := t.m.d.session.Verified(ctx, t.m.joined.Slug)
	if err != nil {
		return err
	}
	t.names, t.first, t.count, t.verified = map[string][]session.Known{}, map[string]time.Time{}, map[string]int{}, verified
	for _, k := range known {
		t.put(k)
	}
	t.loaded = true
	return nil
}

// put enters one name, or replaces what was known of it. The caller holds mu.
func (t *trust) put(k session.Known) {
	of := t.names[k.Name]
	if i := slices.IndexFunc(of, func(o session.Known) bool { return o.MemberKey == k.MemberKey }); i >= 0 {
		of[i] = k
	} else {
		t.names[k.Name] = append(of, k)
		t.count[k.MemberKey]++
	}
	if at, met := t.first[k.MemberKey]; !met || k.FirstSeenAt.Before(at) {
		t.first[k.MemberKey] = k.FirstSeenAt
	}
}

// judge tells what a name and a member key are to each other, "" when one is missing. since is when the contact in question began: a key first met then, or
// later, is new. was are the keys that the name belongs to, when it is changed. The caller holds mu.
func (t *trust) judge(name, key string, since time.Time) (state string, was []string) {
	if name == "" || !mesh.ValidKey(key) {
		return "", nil
	}
	own := false
	for _, k := range t.names[name] {
		switch {
		case k.MemberKey == key:
			own = k.Accepted
		case k.Accepted:
			was = append(was, k.MemberKey)
		}
	}
	first, met := t.first[key]
	_, verified := t.verified[key]
	switch {
	case key == t.m.joined.Pubkey:
		return bus.TrustVerified, nil
	case len(was) > 0 && !own:
		return bus.TrustChanged, was
	case verified:
		return bus.TrustVerified, nil
	case !met || !first.Before(since):
		return bus.TrustNew, nil
	}
	return bus.TrustKnown, nil
}

// met judges a contact and remembers it.
func (t *trust) met(ctx context.Context, name, key string, at time.Time) (state string, was []string) {
	name = foldName(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.load(ctx); err != nil {
		t.m.d.opt.Log.Error("trust_not_readable", "mesh", t.m.joined.Slug, "error", err)
		return "", nil
	}
	state, was = t.judge(name, key, at)
	if state == "" {
		return "", nil
	}
	k := session.Known{Name: name, MemberKey: key, FirstSeenAt: at, LastSeenAt: at, Accepted: state != bus.TrustChanged}
	if i := slices.IndexFunc(t.names[name], func(o session.Known) bool { return o.MemberKey == key }); i >= 0 {
		old := t.names[name][i]
		if at.Sub(old.LastSeenAt) < touchNames {
			return state, was
		}
		k.FirstSeenAt, k.Accepted = old.FirstSeenAt, old.Accepted
	}
	drop := t.makeRoom(key)
	t.put(k)
	if err := t.m.d.session.NoteName(ctx, t.m.joined.Slug, k, drop...); err != nil {
		t.m.d.opt.Log.Error("trust_not_kept", "mesh", t.m.joined.Slug, "error", err)
	}
	return state, was
}

// makeRoom forgets the oldest name of a member that has too many. The caller holds mu.
func (t *trust) makeRoom(key string) (dropped []session.Known) {
	if t.count[key] < maxNamesOfMember {
		return nil
	}
	var oldest session.Known
	for _, of := range t.names {
		for _, k := range of {
			if k.MemberKey == key && (oldest.Name == "" || k.LastSeenAt.Before(oldest.LastSeenAt)) {
				oldest = k
			}
		}
	}
	left := slices.DeleteFunc(t.names[oldest.Name], func(k session.Known) bool { return k.MemberKey == key })
	if t.names[oldest.Name] = left; len(left) == 0 {
		delete(t.names, oldest.Name)
	}
	t.count[key]--
	return []session.Known{oldest}
}

// sender is what a received message says of its sender's key; nothing of what nobody could read or the broker itself wrote.
func (m *meshRun) sender(ctx context.Context, msg inbox.Message, remember bool) string {
	if msg.Undecryptable || msg.Subtype != "" {
		return ""
	}
	if remember {
		state, _ := m.trust.met(ctx, msg.SenderName, msg.SenderMemberKey, msg.ReceivedAt)
		return state
	}
	m.trust.mu.Lock()
	defer m.trust.mu.Unlock()
	if m.trust.load(ctx) != nil {
		return ""
	}
	state, _ := m.trust.judge(foldName(msg.SenderName), msg.SenderMemberKey, msg.ReceivedAt)
	return state
}

// item is a message of this mesh as it is shown.
func (m *meshRun) item(ctx context.Context, it inbox.Item) bus.InboxItem {
	out := inboxItem(it, m.addressee(it.Message))
	out.Trust = m.sender(ctx, it.Message, false)
	return out
}

// chosen remembers whom a name was taken for, and returns the warning that its key has changed, or "".
func (m *meshRun) chosen(ctx context.Context, t mesh.Target, peer mesh.Candidate) string {
	if t.Kind != mesh.TargetName {
		return "" // who names a key means the key
	}
	key := peer.MemberKey
	if key == "" {
		key = m.roster.memberOf(peer.Key)
	}
	state, was := m.trust.met(ctx, peer.Name, key, m.d.opt.Clock.Now())
	if state != bus.TrustChanged {
		return ""
	}
	name := printable(peer.Name)
	return fmt.Sprintf("%s was member key %s until now, and is %s: somebody may have taken the name; compare the safety number with: claudemesh verify %s, and if it is right: claudemesh verify %s --confirm",
		name, strings.Join(shortKeys(was), ", "), shortKeys([]string{key})[0], name, key[:keyDigits])
}

// keyDigits is how much of a key is shown, and enough to name it.
const keyDigits = 16

func shortKeys(keys []string) []string {
	out := make([]string, 0, len(keys))
	for _, k := range keys {
		out = append(out, k[:min(keyDigits, len(k))]+"…")
	}
	return out
}

// about puts the judgement of several names of one member together: the worst counts. The caller holds mu.
func (t *trust) about(ref bus.TrustRef, now time.Time) bus.TrustState {
	out := bus.TrustState{MemberKey: ref.MemberKey, State: bus.TrustNew, FirstSeenAt: stamp(t.first[ref.MemberKey]), VerifiedAt: stamp(t.verified[ref.MemberKey])}
	for _, name := range ref.Names {
		state, was := t.judge(foldName(name), ref.MemberKey, now)
		switch {
		case state == bus.TrustChanged:
			out.State, out.Was = state, append(out.Was, was...)
		case state != "" && out.State != bus.TrustChanged:
			out.State = state
		}
	}
	slices.Sort(out.Was)
	out.Was = slices.Compact(out.Was)
	return out
}

func (d *Daemon) askTrust(ctx context.Context, c *bus.Call) (any, error) {
	var q bus.TrustQuery
	if err := c.Decode(&q); err != nil {
		return nil, err
	}
	m, err := d.mesh(q.Mesh)
	if err != nil {
		return nil, err
	}
	if len(q.Members) > bus.MaxTrustRefs {
		return nil, &bus.APIError{Code: 400, Reason: "too_many", Detail: fmt.Sprintf("at most %d members at once", bus.MaxTrustRefs)}
	}
	t := m.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	out := bus.TrustList{Members: make([]bus.TrustState, 0, len(q.Members))}
	for _, ref := range q.Members {
		out.Members = append(out.Members, t.about(ref, d.opt.Clock.Now()))
	}
	return out, nil
}

// confirmTrust keeps that the user has compared a member's safety number. The member may go by the names given, and by those that it goes by now.
func (d *Daemon) confirmTrust(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.TrustConfirm
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.mesh(req.Mesh)
	if err != nil {
		return nil, err
	}
	if !mesh.ValidKey(req.MemberKey) || req.MemberKey == m.joined.Pubkey {
		return nil, &bus.APIError{Code: 400, Reason: "bad_key", Detail: "name the key of another member, 64 hex digits"}
	}
	now := d.opt.Clock.Now()
	var names []string
	for _, name := range append(m.roster.namesOf(req.MemberKey), req.Names...) {
		if name = foldName(name); name != "" && !slices.Contains(names, name) && len(names) < maxNamesOfMember/2 {
			names = append(names, name)
		}
	}
	t := m.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	if err := d.session.Verify(ctx, m.joined.Slug, req.MemberKey, now, names...); err != nil {
		return nil, storeError(err)
	}
	t.verified[req.MemberKey] = now
	for _, name := range names {
		k := session.Known{Name: name, MemberKey: req.MemberKey, FirstSeenAt: now, LastSeenAt: now, Accepted: true}
		if i := slices.IndexFunc(t.names[name], func(o session.Known) bool { return o.MemberKey == k.MemberKey }); i >= 0 {
			k.FirstSeenAt = t.names[name][i].FirstSeenAt
		}
		t.put(k)
	}
	d.opt.Log.Info("member_verified", "mesh", m.joined.Slug, "member", req.MemberKey)
	return t.about(bus.TrustRef{MemberKey: req.MemberKey, Names: names}, now), nil
}
