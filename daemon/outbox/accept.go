package outbox

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"claudemesh/daemon/groupcommit"
)

// Verdict is what Accept found.
type Verdict struct {
	Row      Row  // the row now in the outbox: the new one, or the one that was there
	Existing bool // the client message id was already in use on this mesh
	Match    bool // Existing, and by the same request from the same sender
}

// Answer is what the caller of a send is told.
type Answer struct {
	Code      int    // 202 accepted, 200 already sent, 409 refused
	Status    string // queued, inflight or done; empty with 409
	Conflict  string // why, with 409
	Duplicate bool   // the request had been sent before
}

// Decide is the duplicate table of the local API (reference §4.5.1, eleven cases): what a request is told, given the
// status of the row that has its client message id and whether that row is the same request. An empty status means
// there was no row. It depends on nothing else, so a repeat gets the same answer whoever is online.
func Decide(status Status, match bool) Answer {
	if match || status == "" {
		switch status {
		case "", Pending:
			return Answer{Code: 202, Status: "queued"}
		case Inflight:
			return Answer{Code: 202, Status: "inflight"}
		case Done:
			return Answer{Code: 200, Status: "done", Duplicate: true}
		}
	}
	conflict := "outbox_" + string(status) + "_fingerprint_mismatch"
	if match {
		conflict = "outbox_" + string(status) + "_fingerprint_match"
	}
	return Answer{Code: 409, Conflict: conflict}
}

// Answer is what the caller of Accept is told, see Decide.
func (v Verdict) Answer() Answer {
	if !v.Existing {
		return Decide("", false)
	}
	return Decide(v.Row.Status, v.Match)
}

// Accept stores a new message, unless its client message id is in use on its mesh: then nothing is changed and the
// Verdict tells what was found. When it returns without error the row is on disk. Look up and insert are one write, so
// of concurrent identical requests exactly one inserts.
func (s *Store) Accept(ctx context.Context, n NewRow) (Verdict, error) {
	var v Verdict
	err := s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		old, found, err := one(tx, selectByCMID, n.ClientMessageID, n.Mesh)
		if err != nil {
			return err
		}
		if found {
			v = Verdict{Row: old, Existing: true, Match: old.Fingerprint == n.Fingerprint && old.SenderKey == n.SenderKey}
			return nil
		}
		row, err := s.insert(tx, n)
		v = Verdict{Row: row}
		return err
	})
	if err != nil {
		return Verdict{}, fmt.Errorf("accept message: %w", err)
	}
	return v, nil
}

func (s *Store) insert(tx *groupcommit.Tx, n NewRow) (Row, error) {
	if n.ID == "" {
		n.ID = uuid.NewString()
	}
	if n.Payload == nil {
		n.Payload = []byte{} // a nil slice would be NULL
	}
	var meta any
	if n.Meta != nil {
		meta = string(n.Meta)
	}
	now := s.now()
	seq, err := tx.Insert(insertRow, n.ID, n.ClientMessageID, n.Mesh, n.Actor, n.SenderKey, n.Kind, n.Target, n.TargetSpec,
		n.Priority, n.ReplyTo, meta, n.Fingerprint[:], n.Payload, now, now)
	if err != nil {
		return Row{}, err
	}
	return Row{NewRow: n, Seq: seq, Status: Pending, EnqueuedAt: fromMillis(now), NextAttemptAt: fromMillis(now)}, nil
}

// one reads at most one row inside a write.
func one(tx *groupcommit.Tx, query string, args ...any) (Row, bool, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return Row{}, false, err
	}
	all, err := scanAll(rows)
	if err != nil || len(all) == 0 {
		return Row{}, false, err
	}
	return all[0], true, nil
}
