package broker

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"claudemesh/wire"
)

// An account is a name, the member keys that were proven to be its, and the machines that are signed in to it. It gives nobody a right in a mesh: members are
// who they were without it, and the broker holds none of their keys. What it is for is to let one's machines find each other, so that one can seal its
// memberships for the other (see SealedBox).
//
// Of a session token the SHA-256 is kept. A token ends when it is revoked, when it was not used for sessionIdle, and after sessionLife in any case.

// Families of the records: account.ID, acctsession.ACCOUNT.ID, acctpackage.ACCOUNT.TO.FROM. No id of an account is that of a mesh.
const (
	familyAccount = "account"
	familySession = "acctsession"
	familyPackage = "acctpackage"
)

const (
	maxAccounts      = 4096
	sessionIdle      = 30 * 24 * time.Hour
	sessionLife      = 365 * 24 * time.Hour
	sessionUsedEvery = time.Hour // its last use is stored this often at most
	sessionPrefix    = "cms_"
	tokenBytes       = 32
	maxPackages      = 256 // for one account
)

// Errors of accounts.
var (
	errNameTaken    = errors.New("name_taken")
	errTooMany      = errors.New("limit")
	errKeyElsewhere = errors.New("key_linked_elsewhere")
)

// accountRecord is an account as it is stored.
type accountRecord struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	CreatedAt int64        `json:"created_at"`
	Keys      []accountKey `json:"keys,omitempty"`
}

type accountKey struct {
	Mesh   string `json:"mesh"`
	Pubkey string `json:"pubkey"`
}

// sessionTokenRecord is a machine that is signed in. Hash is of its token.
type sessionTokenRecord struct {
	ID        string      `json:"id"`
	Account   string      `json:"account"`
	Hash      string      `json:"hash"`
	Device    wire.Device `json:"device"`
	CreatedAt int64       `json:"created_at"`
	UsedAt    int64       `json:"used_at"`
}

func (s sessionTokenRecord) expires() time.Time {
	idle, life := unixMilli(s.UsedAt).Add(sessionIdle), unixMilli(s.CreatedAt).Add(sessionLife)
	if life.Before(idle) {
		return life
	}
	return idle
}

// accounts is what the broker knows of them. One change of the store at a time holds work; mu guards the maps.
type accounts struct {
	work sync.Mutex

	mu       sync.Mutex
	byID     map[string]*accountRecord
	byKey    map[accountKey]string          // the account's id
	sessions map[string]*sessionTokenRecord // by the hash of the token
	devices  deviceCodes
	passes   map[string]pass // by their hash
}

// pass approves one machine for an account on the page.
type pass struct {
	account string
	until   time.Time
}

func (b *Broker) loadAccounts(ctx context.Context) error {
	a := &accounts{
		byID: map[string]*accountRecord{}, byKey: map[accountKey]string{}, sessions: map[string]*sessionTokenRecord{}, passes: map[string]pass{}, devices: newDeviceCodes(),
	}
	b.accounts = a
	all, err := listRecords[accountRecord](ctx, b.store, familyAccount)
	if err != nil {
		return err
	}
	for _, r := range all {
		a.keep(r.Value)
	}
	tokens, err := listRecords[sessionTokenRecord](ctx, b.store, familySession)
	if err != nil {
		return err
	}
	for _, r := range tokens {
		if a.byID[r.Value.Account] == nil || !b.now().Before(r.Value.expires()) {
			if err := b.store.deleteRecord(ctx, r.Key); err != nil {
				return err
			}
			continue
		}
		a.sessions[r.Value.Hash] = &r.Value
	}
	return nil
}

// keep puts an account into the maps. Called under mu, or before anybody else knows the accounts.
func (a *accounts) keep(rec accountRecord) {
	a.byID[rec.ID] = &rec
	for _, k := range rec.Keys {
		a.byKey[k] = rec.ID
	}
}

// named finds an account by its name, whatever the case of its letters.
func (a *accounts) named(name string) *accountRecord {
	for _, rec := range a.byID {
		if strings.EqualFold(rec.Name, name) {
			return rec
		}
	}
	return nil
}

func (b *Broker) user(id string) (wire.User, bool) {
	b.accounts.mu.Lock()
	defer b.accounts.mu.Unlock()
	rec := b.accounts.byID[id]
	if rec == nil {
		return wire.User{}, false
	}
	return wire.User{ID: rec.ID, DisplayName: rec.Name}, true
}

// makeAccount makes an account of that name. Errors: errNameTaken, errTooMany.
func (b *Broker) makeAccount(ctx context.Context, name string, keys ...accountKey) (string, error) {
	a := b.accounts
	a.work.Lock()
	defer a.work.Unlock()
	a.mu.Lock()
	taken, full := a.named(name) != nil, len(a.byID) >= maxAccounts
	a.mu.Unlock()
	switch {
	case taken:
		return "", errNameTaken
	case full:
		return "", errTooMany
	}
	id, err := newID(b.cfg.Rand)
	if err != nil {
		return "", err
	}
	rec := accountRecord{ID: id, Name: name, CreatedAt: b.now().UnixMilli(), Keys: keys}
	if err := b.store.createRecord(ctx, recordKey(familyAccount, id), rec); err != nil {
		return "", err
	}
	a.mu.Lock()
	a.keep(rec)
	a.mu.Unlock()
	b.log.Info("account made", "account", id, "name", name)
	return id, nil
}

// linkKey adds a member key, which has been proven, to an account. Errors: errKeyElsewhere, errTooMany.
func (b *Broker) linkKey(ctx context.Context, id string, key accountKey) error {
	a := b.accounts
	a.work.Lock()
	defer a.work.Unlock()
	a.mu.Lock()
	rec, owner := *a.byID[id], a.byKey[key]
	a.mu.Unlock()
	switch {
	case owner == id:
		return nil
	case owner != "":
		return errKeyElsewhere
	case len(rec.Keys) >= wire.MaxAccountKeys:
		return errTooMany
	}
	rec.Keys = append(slices.Clone(rec.Keys), key)
	if err := b.store.putRecord(ctx, recordKey(familyAccount, id), rec); err != nil {
		return err
	}
	a.mu.Lock()
	a.keep(rec)
	a.mu.Unlock()
	return nil
}

// secret makes a token of that prefix.
func secret(random io.Reader, prefix string) (string, error) {
	raw := make([]byte, tokenBytes)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	return prefix + base64.RawURLEncoding.EncodeToString(raw), nil
}

// signIn gives a machine a token of an account. A machine that signs in again, by its key, loses the token it had; of too many machines the one that was not
// seen for longest is signed out.
func (b *Broker) signIn(ctx context.Context, account string, d wire.Device) (token string, rec sessionTokenRecord, err error) {
	a := b.accounts
	a.work.Lock()
	defer a.work.Unlock()
	id, err := newID(b.cfg.Rand)
	if err != nil {
		return "", rec, err
	}
	if token, err = secret(b.cfg.Rand, sessionPrefix); err != nil {
		return "", rec, err
	}
	now := b.now().UnixMilli()
	d.Check = ""
	rec = sessionTokenRecord{ID: id, Account: account, Hash: hashSecret(token), Device: d, CreatedAt: now, UsedAt: now}
	live := b.sessionsOf(account)
	over := max(len(live)+1-wire.MaxDevices, 0)
	for i, old := range live {
		if i < over || d.Pubkey != "" && old.Device.Pubkey == d.Pubkey {
			if err := b.dropSession(ctx, old); err != nil {
				return "", rec, err
			}
		}
	}
	if err := b.store.createRecord(ctx, recordKey(familySession, account, id), rec); err != nil {
		return "", rec, err
	}
	a.mu.Lock()
	a.sessions[rec.Hash] = &rec
	a.mu.Unlock()
	b.log.Info("machine signed in", "account", account, "session", id)
	return token, rec, nil
}

// sessionsOf lists the live ones of an account, the longest unused first.
func (b *Broker) sessionsOf(account string) (all []sessionTokenRecord) {
	now := b.now()
	b.accounts.mu.Lock()
	for _, s := range b.accounts.sessions {
		if s.Account == account && now.Before(s.expires()) {
			all = append(all, *s)
		}
	}
	b.accounts.mu.Unlock()
	slices.SortFunc(all, func(x, y sessionTokenRecord) int {
		return cmp.Or(cmp.Compare(x.UsedAt, y.UsedAt), strings.Compare(x.ID, y.ID))
	})
	return all
}

// dropSession ends a token, and forgets what was sealed for its machine if no other token is of that machine. accounts.work is held.
func (b *Broker) dropSession(ctx context.Context, s sessionTokenRecord) error {
	if err := b.store.deleteRecord(ctx, recordKey(familySession, s.Account, s.ID)); err != nil {
		return err
	}
	b.accounts.mu.Lock()
	delete(b.accounts.sessions, s.Hash)
	b.accounts.mu.Unlock()
	return nil
}

// bearerSession finds the machine that makes a request, by its token, and notes that it was seen.
func (b *Broker) bearerSession(ctx context.Context, token string) (sessionTokenRecord, bool) {
	if !strings.HasPrefix(token, sessionPrefix) || len(token) > 128 {
		return sessionTokenRecord{}, false
	}
	now := b.now()
	// The lookup is by hash: how long it takes says nothing about the token.
	b.accounts.mu.Lock()
	s := b.accounts.sessions[hashSecret(token)]
	if s == nil || !now.Before(s.expires()) {
		b.accounts.mu.Unlock()
		return sessionTokenRecord{}, false
	}
	save := now.Sub(unixMilli(s.UsedAt)) >= sessionUsedEvery
	if save {
		s.UsedAt = now.UnixMilli()
	}
	rec := *s
	b.accounts.mu.Unlock()
	if save {
		b.accounts.work.Lock()
		defer b.accounts.work.Unlock()
		b.accounts.mu.Lock()
		live := b.accounts.sessions[rec.Hash] == s // else it was revoked meanwhile, and must not come back
		b.accounts.mu.Unlock()
		if live {
			if err := b.store.putRecord(ctx, recordKey(familySession, rec.Account, rec.ID), rec); err != nil {
				b.log.Warn("use of a session token not noted", "err", err)
			}
		}
	}
	return rec, true
}

// revokeSession ends the token of that hash, or, with an id, another one of the account. found says whether there was one.
func (b *Broker) revokeSession(ctx context.Context, match func(sessionTokenRecord) bool) (found bool, err error) {
	a := b.accounts
	a.work.Lock()
	defer a.work.Unlock()
	var hit *sessionTokenRecord
	a.mu.Lock()
	for _, s := range a.sessions {
		if match(*s) {
			c := *s
			hit = &c
			break
		}
	}
	a.mu.Unlock()
	if hit == nil {
		return false, nil
	}
	if err := b.dropSession(ctx, *hit); err != nil {
		return true, err
	}
	if to := hit.Device.Pubkey; to != "" {
		boxes, err := listRecords[wire.SealedBox](ctx, b.store, familyPackage, hit.Account, to)
		for _, r := range boxes {
			err = errors.Join(err, b.store.deleteRecord(ctx, r.Key))
		}
		if err != nil {
			return true, err
		}
	}
	b.log.Info("machine signed out", "account", hit.Account, "session", hit.ID)
	return true, nil
}

// depositBox puts a sealed package where the machine it is for finds it, in place of an older one by the same machine.
func (b *Broker) depositBox(ctx context.Context, account string, box wire.SealedBox) error {
	b.accounts.work.Lock()
	defer b.accounts.work.Unlock()
	box.At = b.now().UnixMilli()
	key := recordKey(familyPackage, account, box.To, box.From)
	all, err := listRecords[wire.SealedBox](ctx, b.store, familyPackage, account)
	if err != nil {
		return err
	}
	if len(all) >= maxPackages && !slices.ContainsFunc(all, func(r record[wire.SealedBox]) bool { return r.Key == key }) {
		return errTooMany
	}
	return b.store.putRecord(ctx, key, box)
}

// packagesFor lists what was sealed for a machine.
func (b *Broker) packagesFor(ctx context.Context, account, to string) ([]wire.SealedBox, error) {
	all, err := listRecords[wire.SealedBox](ctx, b.store, familyPackage, account, to)
	if err != nil {
		return nil, err
	}
	boxes := make([]wire.SealedBox, 0, len(all))
	for _, r := range all {
		boxes = append(boxes, r.Value)
	}
	slices.SortFunc(boxes, func(x, y wire.SealedBox) int { return cmp.Or(cmp.Compare(x.At, y.At), strings.Compare(x.From, y.From)) })
	return boxes, nil
}
