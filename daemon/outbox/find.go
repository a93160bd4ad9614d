package outbox

import (
	"context"
	"errors"
)

// MinPrefix is the length from which the beginning of an id stands for it.
const MinPrefix = 8

// ErrAmbiguousPrefix: several messages have ids that begin so.
var ErrAmbiguousPrefix = errors.New("several messages begin so")

const (
	// ?2 and ?3 bound who asks: "" is everybody, and every mesh.
	visible     = ` AND (?2 = '' OR actor = ?2) AND (?3 = '' OR mesh = ?3)`
	findExact   = `SELECT ` + columns + ` FROM outbox WHERE (id = ?1 OR client_message_id = ?1 OR broker_message_id = ?1)` + visible + ` ORDER BY seq DESC LIMIT 3`
	findPrefix  = `SELECT ` + columns + ` FROM outbox WHERE (id BETWEEN ?1 AND ?4 OR client_message_id BETWEEN ?1 AND ?4 OR broker_message_id BETWEEN ?1 AND ?4)` + visible + ` ORDER BY seq DESC LIMIT 3`
	findBroker  = `SELECT ` + columns + ` FROM outbox WHERE broker_message_id = ? AND mesh = ? LIMIT 1`
	findAnswers = `SELECT ` + columns + ` FROM outbox WHERE reply_to_id IN (?1, ?4)` + visible + ` ORDER BY seq LIMIT 50`
	afterPrefix = "\U0010ffff" // the last character there is: what begins with a prefix sorts before prefix + this
)

// Find returns the message that ref means: row id, client message id or broker message id, or the beginning of one in MinPrefix or more bytes. actor and mesh
// limit the search, "" does not. A full id goes before the beginning of another. Errors: ErrNotFound; ErrAmbiguous when one full id is used on several
// meshes; ErrAmbiguousPrefix.
func (s *Store) Find(ctx context.Context, ref, actor, mesh string) (Row, error) {
	rows, err := s.read(ctx, findExact, ref, actor, mesh)
	switch {
	case err != nil:
		return Row{}, err
	case len(rows) > 1:
		return Row{}, ErrAmbiguous
	case len(rows) == 1:
		return rows[0], nil
	case len(ref) < MinPrefix:
		return Row{}, ErrNotFound
	}
	rows, err = s.read(ctx, findPrefix, ref, actor, mesh, ref+afterPrefix)
	switch {
	case err != nil:
		return Row{}, err
	case len(rows) > 1:
		return Row{}, ErrAmbiguousPrefix
	case len(rows) == 0:
		return Row{}, ErrNotFound
	}
	return rows[0], nil
}

// Answers returns messages of a mesh that reply to either id, oldest first, at most 50. actor limits them, "" does not.
func (s *Store) Answers(ctx context.Context, mesh, actor, id, other string) ([]Row, error) {
	if other == "" {
		other = id
	}
	return s.read(ctx, findAnswers, id, actor, mesh, other)
}

// ByBroker finds the row that the broker of a mesh knows by this id.
func (s *Store) ByBroker(ctx context.Context, mesh, brokerID string) (Row, bool, error) {
	rows, err := s.read(ctx, findBroker, brokerID, mesh)
	if err != nil || len(rows) == 0 {
		return Row{}, false, err
	}
	return rows[0], true, nil
}
