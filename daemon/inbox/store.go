package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jonboulle/clockwork"

	"claudemesh/daemon/groupcommit"
)

var (
	// ErrCorrupt is returned by Open for a damaged file, which is left as it is.
	ErrCorrupt = groupcommit.ErrCorrupt
	// ErrNotFound: no message has this id.
	ErrNotFound = errors.New("no such message in the inbox")
)

// Store is an open inbox. All methods may be called concurrently.
type Store struct {
	db    *groupcommit.DB
	clock clockwork.Clock
}

// Open opens or creates the inbox at path. Errors: ErrCorrupt, groupcommit.ErrNewer, or what the system says.
func Open(path string, clock clockwork.Clock) (*Store, error) {
	db, err := groupcommit.Open(path, migrations, groupcommit.Options{})
	if err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	return &Store{db: db, clock: clock}, nil
}

// OpenOrQuarantine is Open that moves a corrupt file (with its -wal and -shm) to <path>.corrupt-<unix ms> and starts an
// empty one. quarantined is the new name of the damaged file, empty when there was none. The broker's copy of what was
// acknowledged is gone, but going on receiving is worth more than stopping over mail that has been read.
func OpenOrQuarantine(path string, clock clockwork.Clock) (s *Store, quarantined string, err error) {
	s, err = Open(path, clock)
	if !errors.Is(err, ErrCorrupt) {
		return s, "", err
	}
	quarantined = path + ".corrupt-" + strconv.FormatInt(clock.Now().UnixMilli(), 10)
	// The log files go first: should the rest fail, the main file is still in place and is found corrupt again.
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(path+suffix, quarantined+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, "", fmt.Errorf("set corrupt inbox aside: %w", err)
		}
	}
	s, err = Open(path, clock)
	return s, quarantined, err
}

// Close finishes the writes under way and closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Arrival is a message that has come in and the sessions concerned.
type Arrival struct {
	Message  Message
	Sessions []string
}

// Stored is what became of an arrival: the message as it is in the store, and whether it was new.
type Stored struct {
	Message  Message
	Inserted bool
}

// Insert stores messages and one delivery row for every session concerned, all in one write; when it returns without error they are on disk and may be
// acknowledged, after an error none of them is. A message known by (mesh, sender, client message id) changes nothing: the stored one is returned and
// Inserted is false. ID, Seq and ReceivedAt are filled in. The result has the arrivals' order.
func (s *Store) Insert(ctx context.Context, arrivals ...Arrival) ([]Stored, error) {
	out := make([]Stored, 0, len(arrivals))
	err := s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		for _, a := range arrivals {
			known, err := collect(tx.Query(selectDuplicate, a.Message.Mesh, a.Message.Sender, a.Message.ClientMessageID))
			if err != nil {
				return err
			}
			if len(known) > 0 {
				out = append(out, Stored{Message: known[0]})
				continue
			}
			m, err := s.insert(tx, a.Message)
			if err != nil {
				return err
			}
			if err := deliver(tx, a.Sessions, m); err != nil {
				return err
			}
			out = append(out, Stored{Message: m, Inserted: true})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store messages: %w", err)
	}
	return out, nil
}

func (s *Store) insert(tx *groupcommit.Tx, m Message) (Message, error) {
	if m.ID == "" {
		m.ID = uuid.NewString()
	}
	if m.ReceivedAt.IsZero() {
		m.ReceivedAt = s.clock.Now()
	}
	m.ReceivedAt, m.CreatedAt, m.SeenAt = fromMillis(m.ReceivedAt.UnixMilli()), fromMillis(millis(m.CreatedAt)), time.Time{}
	body := sql.NullString{String: m.Body, Valid: !m.Undecryptable}
	if m.Undecryptable {
		m.Body = ""
	} else {
		m.Reason, m.Nonce, m.Ciphertext = "", nil, nil
	}
	seq, err := tx.Insert(insertMessage, m.ID, m.Mesh, m.Sender, m.ClientMessageID, m.BrokerMessageID, m.SenderKey,
		m.SenderMemberKey, m.SenderName, m.RecipientKey, m.TargetSpec, m.ToKind, m.Topic, m.Subtype, m.Priority, m.ReplyTo, body,
		m.Undecryptable, m.Reason, m.Nonce, m.Ciphertext, millis(m.CreatedAt), millis(m.ReceivedAt))
	m.Seq = seq
	return m, err
}

func deliver(tx *groupcommit.Tx, sessions []string, messages ...Message) error {
	for _, m := range messages {
		for _, id := range sessions {
			if _, err := tx.Exec(insertDelivery, m.ID, id, m.Seq); err != nil {
				return err
			}
		}
	}
	return nil
}

// Get finds a message by its id. Error: ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (Message, error) {
	all, err := collect(s.db.Query(ctx, selectByID, id))
	if err != nil {
		return Message{}, err
	}
	if len(all) == 0 {
		return Message{}, ErrNotFound
	}
	return all[0], nil
}

// collect reads messages from a query's result.
func collect(rows *sql.Rows, err error) ([]Message, error) {
	if err != nil {
		return nil, fmt.Errorf("read inbox: %w", err)
	}
	defer rows.Close()
	var all []Message
	for rows.Next() {
		m, err := scanMessage(rows)
		if err != nil {
			return nil, fmt.Errorf("read inbox: %w", err)
		}
		all = append(all, m)
	}
	return all, rows.Err()
}

func scanMessage(rows *sql.Rows, more ...any) (Message, error) {
	var m Message
	var created, received, seen int64
	err := rows.Scan(append([]any{
		&m.ID, &m.Seq, &m.Mesh, &m.Sender, &m.ClientMessageID, &m.BrokerMessageID, &m.SenderKey,
		&m.SenderMemberKey, &m.SenderName, &m.RecipientKey, &m.TargetSpec, &m.ToKind, &m.Topic, &m.Subtype, &m.Priority,
		&m.ReplyTo, &m.Body, &m.Undecryptable, &m.Reason, &m.Nonce, &m.Ciphertext, &created, &received, &seen,
	}, more...)...)
	m.CreatedAt, m.ReceivedAt, m.SeenAt = fromMillis(created), fromMillis(received), fromMillis(seen)
	return m, err
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
