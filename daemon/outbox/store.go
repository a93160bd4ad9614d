package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/daemon/groupcommit"
)

var (
	// ErrCorrupt is returned by Open for a damaged file, which is left as it is: accepted messages may still be rescued
	// from it, so a daemon must not start without it.
	ErrCorrupt = groupcommit.ErrCorrupt
	// ErrNotFound: no row has this id.
	ErrNotFound = errors.New("no such message in the outbox")
	// ErrAmbiguous: a client message id given without a mesh is in use on several.
	ErrAmbiguous = errors.New("message id is in use on more than one mesh")
	// ErrState: the row has left the state the transition starts from. Nothing was changed; whoever moved it was first.
	ErrState = errors.New("message has changed state")
)

// Store is an open outbox. All methods may be called concurrently.
type Store struct {
	db    *groupcommit.DB
	clock clockwork.Clock
}

// Open opens or creates the outbox at path. Errors: ErrCorrupt, groupcommit.ErrNewer, or what the system says.
func Open(path string, clock clockwork.Clock) (*Store, error) {
	return open(path, clock, groupcommit.Options{})
}

func open(path string, clock clockwork.Clock, opts groupcommit.Options) (*Store, error) {
	db, err := groupcommit.Open(path, migrations, opts)
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	return &Store{db: db, clock: clock}, nil
}

// Close finishes the writes under way and closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Lookup finds the row of a client message id.
func (s *Store) Lookup(ctx context.Context, mesh, cmid string) (Row, bool, error) {
	rows, err := s.read(ctx, selectByCMID, cmid, mesh)
	if err != nil || len(rows) == 0 {
		return Row{}, false, err
	}
	return rows[0], true, nil
}

// Get finds a row by its id or its client message id. Errors: ErrNotFound, ErrAmbiguous.
func (s *Store) Get(ctx context.Context, idOrCMID string) (Row, error) {
	for _, query := range []string{selectByID, selectByAny} {
		rows, err := s.read(ctx, query, idOrCMID)
		switch {
		case err != nil:
			return Row{}, err
		case len(rows) > 1:
			return Row{}, ErrAmbiguous
		case len(rows) == 1:
			return rows[0], nil
		}
	}
	return Row{}, ErrNotFound
}

// List returns the selected rows, newest first.
func (s *Store) List(ctx context.Context, f Filter) ([]Row, error) {
	query := `SELECT ` + columns + ` FROM outbox WHERE 1`
	var args []any
	for _, c := range []struct{ sql, value string }{
		{` AND status = ?`, string(f.Status)}, {` AND mesh = ?`, f.Mesh}, {` AND actor = ?`, f.Actor},
	} {
		if c.value != "" {
			query += c.sql
			args = append(args, c.value)
		}
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	return s.read(ctx, query+` ORDER BY seq DESC LIMIT ?`, append(args, min(limit, 10_000))...)
}

// Counts returns the number of rows per mesh and status, without zeroes.
func (s *Store) Counts(ctx context.Context) ([]Count, error) {
	rows, err := s.db.Query(ctx, selectCounts)
	if err != nil {
		return nil, fmt.Errorf("count outbox: %w", err)
	}
	defer rows.Close()
	var counts []Count
	for rows.Next() {
		var c Count
		if err := rows.Scan(&c.Mesh, &c.Status, &c.Rows); err != nil {
			return nil, fmt.Errorf("count outbox: %w", err)
		}
		counts = append(counts, c)
	}
	return counts, rows.Err()
}

// HasPending reports whether a message for this recipient (a routing target, or a target as typed while unresolved)
// has not reached the broker yet: it is pending or in flight.
func (s *Store) HasPending(ctx context.Context, mesh, recipient string) (bool, error) {
	rows, err := s.db.Query(ctx, selectQueued, mesh, recipient)
	if err != nil {
		return false, fmt.Errorf("look for queued messages: %w", err)
	}
	defer rows.Close()
	var has bool
	if rows.Next() {
		err = rows.Scan(&has)
	}
	return has, errors.Join(err, rows.Err())
}

func (s *Store) read(ctx context.Context, query string, args ...any) ([]Row, error) {
	rows, err := s.db.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	return scanAll(rows)
}

func scanAll(rows *sql.Rows) ([]Row, error) {
	defer rows.Close()
	var all []Row
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read outbox: %w", err)
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

func scan(rows *sql.Rows) (Row, error) {
	var r Row
	var meta sql.NullString
	var fingerprint []byte
	var enqueued, next, delivered, aborted int64
	err := rows.Scan(&r.Seq, &r.ID, &r.ClientMessageID, &r.Mesh, &r.Actor, &r.SenderKey, &r.Kind, &r.Target, &r.TargetSpec,
		&r.Priority, &r.ReplyTo, &meta, &fingerprint, &r.Payload, &enqueued, &r.Attempts,
		&next, &r.Status, &r.LastError, &delivered, &r.BrokerMessageID, &aborted, &r.AbortedBy, &r.SupersededBy)
	if err != nil {
		return Row{}, err
	}
	if meta.Valid {
		r.Meta = []byte(meta.String)
	}
	if r.Payload == nil {
		r.Payload = []byte{} // the driver gives nil for an empty blob
	}
	copy(r.Fingerprint[:], fingerprint)
	r.EnqueuedAt, r.NextAttemptAt = fromMillis(enqueued), fromMillis(next)
	r.DeliveredAt, r.AbortedAt = fromMillis(delivered), fromMillis(aborted)
	return r, nil
}

func (s *Store) now() int64 { return s.clock.Now().UnixMilli() }

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
