package session

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/daemon/groupcommit"
)

var (
	// ErrCorrupt is returned by Open for a damaged file, which is left as it is: it holds the sessions' keys.
	ErrCorrupt = groupcommit.ErrCorrupt
	// ErrNotFound: no session has this id, or none that is live where a live one is needed.
	ErrNotFound = errors.New("no such session")
	// ErrTokenInUse: the token belongs to another live session.
	ErrTokenInUse = errors.New("token belongs to another live session")
	// ErrBadRegistration: a required field is missing.
	ErrBadRegistration = errors.New("registration is incomplete")
)

// Store is an open registry. All methods may be called concurrently.
type Store struct {
	db    *groupcommit.DB
	clock clockwork.Clock
	rand  io.Reader // read only inside writes, so by one goroutine at a time
	live  atomic.Pointer[snapshot]
}

// snapshot is the live sessions as they were after so many commits. They are asked for with every message, and change with none.
type snapshot struct {
	commits  uint64
	sessions []Session
}

// Open opens or creates the registry at path. rand is where key seeds come from, crypto/rand.Reader outside tests.
// Errors: ErrCorrupt, groupcommit.ErrNewer, or what the system says.
func Open(path string, clock clockwork.Clock, rand io.Reader) (*Store, error) {
	db, err := groupcommit.Open(path, migrations, groupcommit.Options{})
	if err != nil {
		return nil, fmt.Errorf("open session registry: %w", err)
	}
	return &Store{db: db, clock: clock, rand: rand}, nil
}

// Close finishes the writes under way and closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Live returns the live sessions, oldest registration first. The list is the caller's, what its elements refer to is not.
func (s *Store) Live(ctx context.Context) ([]Session, error) {
	live, err := s.snapshot(ctx)
	return slices.Clone(live), err
}

// snapshot is the live sessions as of the last commit. The number of commits is read first: what is committed during the query makes it outdated.
func (s *Store) snapshot(ctx context.Context) ([]Session, error) {
	commits := s.db.Stats().Commits
	if now := s.live.Load(); now != nil && now.commits == commits {
		return now.sessions, nil
	}
	live, err := collect(s.db.Query(ctx, selectLive))
	if err != nil {
		return nil, err
	}
	s.live.Store(&snapshot{commits: commits, sessions: live})
	return live, nil
}

func (s *Store) oneLive(ctx context.Context, is func(Session) bool) (Session, bool, error) {
	live, err := s.snapshot(ctx)
	if err != nil {
		return Session{}, false, err
	}
	if i := slices.IndexFunc(live, is); i >= 0 {
		return live[i], true, nil
	}
	return Session{}, false, nil
}

// Get returns a session by its id, also one that has ended. Error: ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (Session, error) {
	return first(collect(s.db.Query(ctx, selectByID, id)))
}

// ByKey finds the live session of a mesh that has this public key.
func (s *Store) ByKey(ctx context.Context, mesh, key string) (Session, bool, error) {
	return s.oneLive(ctx, func(l Session) bool { return l.Mesh == mesh && l.PublicKey == key })
}

// ByTokenHash finds the live session a token belongs to, given the token's SHA-256.
func (s *Store) ByTokenHash(ctx context.Context, hash [32]byte) (Session, bool, error) {
	return s.oneLive(ctx, func(l Session) bool { return l.TokenHash == hash })
}

// Children returns the live sessions that a session has made, oldest first.
func (s *Store) Children(ctx context.Context, id string) ([]Session, error) {
	return collect(s.db.Query(ctx, selectChildren, id))
}

// End ends a live session and returns it. Error: ErrNotFound when there is none.
func (s *Store) End(ctx context.Context, id string) (ended Session, err error) {
	err = s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		if ended, err = first(collect(tx.Query(endSession, s.now(), id))); err != nil {
			return err
		}
		return s.leave(tx, ended)
	})
	if err != nil {
		return Session{}, fmt.Errorf("end session: %w", err)
	}
	return ended, nil
}

// SetGroups replaces the groups of a live session. Error: ErrNotFound when there is none.
func (s *Store) SetGroups(ctx context.Context, id string, groups []string) error {
	if groups == nil {
		groups = []string{}
	}
	list, err := encodeList(groups)
	if err != nil {
		return err
	}
	return change(ctx, "set groups of session", s.db.Write, setGroups, list, id)
}

// SetPresence keeps what a live session says of itself, opaque to the registry. Error: ErrNotFound when there is none.
func (s *Store) SetPresence(ctx context.Context, id string, presence []byte) error {
	return change(ctx, "set presence of session", s.db.Note, setPresence, presence, id)
}

// SetWake keeps what is known of the ways to a live session, opaque to the registry. Error: ErrNotFound when there is none.
func (s *Store) SetWake(ctx context.Context, id string, wake []byte) error {
	return change(ctx, "set wake state of session", s.db.Note, setWake, wake, id)
}

// change runs one update of one session through write.
func change(ctx context.Context, what string, write func(context.Context, func(*groupcommit.Tx) error) error, query string, args ...any) error {
	err := write(ctx, func(tx *groupcommit.Tx) error {
		changed, err := tx.Exec(query, args...)
		if err == nil && changed == 0 {
			err = ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Touch notes that a live session has been heard of. Error: ErrNotFound when there is none.
func (s *Store) Touch(ctx context.Context, id string) error {
	return change(ctx, "touch session", s.db.Note, touchSession, s.now(), id)
}

func (s *Store) now() int64 { return s.clock.Now().UnixMilli() }

func first(all []Session, err error) (Session, error) {
	if err != nil {
		return Session{}, err
	}
	if len(all) == 0 {
		return Session{}, ErrNotFound
	}
	return all[0], nil
}

func collect(rows *sql.Rows, err error) ([]Session, error) {
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	defer rows.Close()
	var all []Session
	for rows.Next() {
		var s Session
		var secret string
		var hash, groups, caps []byte
		var registered, seen, ended int64
		if err := rows.Scan(&s.ID, &s.Mesh, &s.Name, &secret, &s.PublicKey, &hash, &s.PID, &s.StartTime, &s.Cwd, &s.Role,
			&groups, &caps, &s.OnlyMesh, &registered, &seen, &ended, &s.Presence, &s.Parent, &s.Wake, &s.MessageMode, &s.Nudge, &s.Conversation); err != nil {
			return nil, fmt.Errorf("read sessions: %w", err)
		}
		s.KeySecret = Secret(secret)
		copy(s.TokenHash[:], hash)
		if s.Groups, err = decodeList(groups); err != nil {
			return nil, err
		}
		if s.Caps, err = decodeList(caps); err != nil {
			return nil, err
		}
		s.RegisteredAt, s.LastSeenAt, s.EndedAt = fromMillis(registered), fromMillis(seen), fromMillis(ended)
		all = append(all, s)
	}
	return all, rows.Err()
}

// encodeList keeps nil (NULL) apart from an empty list.
func encodeList(list []string) (any, error) {
	if list == nil {
		return nil, nil
	}
	b, err := json.Marshal(list)
	return string(b), err
}

func decodeList(b []byte) (list []string, err error) {
	if b == nil {
		return nil, nil
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	return list, nil
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
