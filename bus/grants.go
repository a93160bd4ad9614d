package bus

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
	natsserver "github.com/nats-io/nats-server/v2/server"
)

// Role is what kind of client a token stands for.
type Role string

// The roles that a token can have. The daemon's own connections have roles that cannot be granted.
const (
	RoleUser    Role = "user"    // the local user: everything that the API offers
	RoleSession Role = "session" // one running program
	RoleTap     Role = "tap"     // reads, never writes

	roleDaemon  Role = "daemon"  // all rights in BUS
	roleService Role = "service" // hears requests, answers inboxes, in BUS
	roleBroker  Role = "broker"  // all rights in BROKER
	roleStore   Role = "store"   // the same, for who holds the token of a store's door
)

// ErrBadGrant means that a grant is incomplete or names something that it may not.
var ErrBadGrant = errors.New("bad grant")

// Grant says what the holder of a token may do.
type Grant struct {
	Role     Role
	Actor    string   // RoleSession: its id, one plain subject token. Ignored for the others
	Mesh     string   // RoleSession: the slug of its mesh, whose messages it receives
	OnlyMesh bool     // RoleSession: it may address its own mesh only
	Groups   []string // RoleSession: the groups whose messages it receives
	Caps     []string // RoleSession: what it may do, the Cap constants; nil means everything, empty nothing but list_peers
	Expires  time.Time
}

// Check returns ErrBadGrant for a grant that Grants.Add would refuse.
func (g Grant) Check() error {
	_, err := permissionsOf(g)
	return err
}

// Hash is SHA-256 of a token: what the server keeps instead of the token.
type Hash = [32]byte

// HashToken hashes a token as presented by a client.
func HashToken(token string) Hash { return sha256.Sum256([]byte(token)) }

// NewToken makes a token of 256 random bits, 64 hex digits.
func NewToken(rand io.Reader) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// Grants is the table of who may connect. It is the server's authenticator: one mutex covers looking a token up, giving the connection its
// permissions and noting it as live, so that a revocation either comes first or finds the connection.
type Grants struct {
	clock clockwork.Clock
	srv   *natsserver.Server
	place func(Hash, Grant) (*natsserver.Account, error)

	mu    sync.Mutex
	table map[Hash]*entry
}

type entry struct {
	grant Grant
	acc   *natsserver.Account
	perms *natsserver.Permissions // nil: everything, for the daemon's own connections
	live  map[uint64]struct{}     // connection ids; those that ended are dropped at the next connect
}

func newGrants(clock clockwork.Clock, place func(Hash, Grant) (*natsserver.Account, error)) *Grants {
	return &Grants{clock: clock, place: place, table: map[Hash]*entry{}}
}

// Add lets the holder of the token in. A grant for a hash that is already known replaces the old one; if it differs, the connections that live on
// the old one are cut, because permissions are fixed when a client connects. It returns ErrBadGrant for a grant that makes no sense.
func (g *Grants) Add(hash Hash, grant Grant) error {
	perms, err := permissionsOf(grant)
	if err != nil {
		return err
	}
	acc, err := g.place(hash, grant)
	if err != nil {
		return err
	}
	g.mu.Lock()
	old := g.table[hash]
	if old != nil && reflect.DeepEqual(old.grant, grant) {
		g.mu.Unlock()
		return nil
	}
	g.table[hash] = &entry{grant: grant, acc: acc, perms: perms, live: map[uint64]struct{}{}}
	g.mu.Unlock()
	g.cut(old)
	return nil
}

// Revoke takes a token back and cuts its live connections. It reports whether the token was known.
func (g *Grants) Revoke(hash Hash) bool {
	g.mu.Lock()
	e := g.table[hash]
	delete(g.table, hash)
	g.mu.Unlock()
	g.cut(e)
	return e != nil
}

// cut runs outside the mutex: closing a connection takes the server's own locks.
func (g *Grants) cut(e *entry) {
	if e == nil {
		return
	}
	g.mu.Lock()
	ids := make([]uint64, 0, len(e.live))
	for id := range e.live {
		ids = append(ids, id)
	}
	g.mu.Unlock()
	for _, id := range ids {
		// The only failure is that the connection has ended by itself.
		_ = g.srv.DisconnectClientByID(id)
	}
}

// Check implements the server's authentication.
func (g *Grants) Check(c natsserver.ClientAuthentication) bool {
	if c.Kind() != natsserver.CLIENT {
		return false
	}
	token := c.GetOpts().Token
	if token == "" {
		return false
	}
	hash := HashToken(token)
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.table[hash]
	if e == nil || e.acc == nil {
		return false
	}
	if !e.grant.Expires.IsZero() && !g.clock.Now().Before(e.grant.Expires) {
		return false
	}
	for id := range e.live {
		if g.srv.GetClient(id) == nil {
			delete(e.live, id)
		}
	}
	e.live[c.GetID()] = struct{}{}
	name := string(e.grant.Role)
	if e.grant.Role == RoleSession {
		name += ":" + e.grant.Actor
	}
	c.RegisterUser(&natsserver.User{Username: name, Account: e.acc, Permissions: e.perms, ConnectionDeadline: e.grant.Expires})
	return true
}

// Find tells what the holder of a token may do. False: the token is unknown, revoked, expired, or one of the daemon's own.
func (g *Grants) Find(hash Hash) (Grant, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.table[hash]
	if e == nil || !e.grant.Expires.IsZero() && !g.clock.Now().Before(e.grant.Expires) {
		return Grant{}, false
	}
	switch e.grant.Role {
	case RoleUser, RoleSession, RoleTap:
		return e.grant, true
	}
	return Grant{}, false
}

// addOwn lets one of the daemon's own connections in: a role that no caller can grant, an account that it names.
func (g *Grants) addOwn(hash Hash, role Role, acc *natsserver.Account, perms *natsserver.Permissions) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.table[hash] = &entry{grant: Grant{Role: role}, acc: acc, perms: perms, live: map[uint64]struct{}{}}
}
