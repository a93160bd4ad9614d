package fts

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
)

// version is the schema's, and that of how text becomes words: a change of either makes the view anew.
const version = 1

// The index is contentless: it finds a row's number by its words and keeps no text. scope is one word made of mesh and kind, so that a search is bounded to
// them inside the index; docs gives a row number its id. WAL without a sync per commit may lose the newest writes with the power, and loses them in order.
const (
	pragmas = "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=cache_size(-2048)&_txlock=immediate"
	schema  = `BEGIN;
CREATE TABLE docs(
  row  INTEGER PRIMARY KEY AUTOINCREMENT,
  mesh TEXT NOT NULL,
  kind TEXT NOT NULL,
  id   TEXT NOT NULL,
  UNIQUE(mesh, kind, id)
);
CREATE VIRTUAL TABLE words USING fts5(scope, text, content = '', contentless_delete = 1, tokenize = 'porter unicode61');
CREATE TABLE positions(source TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
COMMIT`
	probe = `SELECT (SELECT count(*) FROM positions) + (SELECT count(*) FROM docs WHERE row = 0) + (SELECT count(*) FROM words WHERE rowid = 0)`

	dropWords = `DELETE FROM words WHERE rowid = (SELECT row FROM docs WHERE mesh = ? AND kind = ? AND id = ?)`
	dropDoc   = `DELETE FROM docs WHERE mesh = ? AND kind = ? AND id = ?`
	addDoc    = `INSERT INTO docs(mesh, kind, id) VALUES(?, ?, ?)`
	addWords  = `INSERT INTO words(rowid, scope, text) VALUES(?, ?, ?)`

	kindWords = `DELETE FROM words WHERE rowid IN (SELECT row FROM docs WHERE mesh = ? AND kind = ?)`
	kindDocs  = `DELETE FROM docs WHERE mesh = ? AND kind = ?`
	meshWords = `DELETE FROM words WHERE rowid IN (SELECT row FROM docs WHERE mesh = ?)`
	meshDocs  = `DELETE FROM docs WHERE mesh = ?`

	getPosition = `SELECT seq FROM positions WHERE source = ?`
	setPosition = `INSERT INTO positions(source, seq) VALUES(?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq`

	// The weight 0 keeps the scope out of the rank. Of equal rank the newer comes first.
	search = `SELECT d.id, -w.score FROM
 (SELECT rowid AS row, bm25(words, 0.0, 1.0) AS score FROM words WHERE words MATCH ?1 ORDER BY score, rowid DESC LIMIT ?4) w
 JOIN docs d ON d.row = w.row WHERE d.mesh = ?2 AND d.kind = ?3 ORDER BY w.score, d.row DESC`
)

// Doc is one document. (Mesh, Kind, ID) names it; Kind is what a search is limited to: "memory", or "topic:" and the topic's id. Text is any text; only its
// words are kept.
type Doc struct{ Mesh, Kind, ID, Text string }

// Put adds documents, replacing those of the same name, all or none.
func (v *View) Put(ctx context.Context, docs ...Doc) error {
	return v.write(ctx, "index documents", func(tx *sql.Tx) error {
		for _, d := range docs {
			if err := drop(ctx, tx, d.Mesh, d.Kind, d.ID); err != nil {
				return err
			}
			done, err := tx.ExecContext(ctx, addDoc, d.Mesh, d.Kind, d.ID)
			if err != nil {
				return err
			}
			row, err := done.LastInsertId()
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, addWords, row, scope(d.Mesh, d.Kind), d.Text); err != nil {
				return err
			}
		}
		return nil
	})
}

// Delete removes documents, all or none. One that is not there is no error.
func (v *View) Delete(ctx context.Context, mesh, kind string, ids ...string) error {
	return v.write(ctx, "remove documents", func(tx *sql.Tx) error {
		for _, id := range ids {
			if err := drop(ctx, tx, mesh, kind, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteKind removes all documents of one kind in a mesh.
func (v *View) DeleteKind(ctx context.Context, mesh, kind string) error {
	return v.write(ctx, "remove documents", func(tx *sql.Tx) error { return both(ctx, tx, kindWords, kindDocs, mesh, kind) })
}

// DeleteMesh removes all documents of a mesh.
func (v *View) DeleteMesh(ctx context.Context, mesh string) error {
	return v.write(ctx, "remove documents", func(tx *sql.Tx) error { return both(ctx, tx, meshWords, meshDocs, mesh) })
}

func drop(ctx context.Context, tx *sql.Tx, mesh, kind, id string) error {
	return both(ctx, tx, dropWords, dropDoc, mesh, kind, id)
}

// both removes rows from the index and then from docs, by which the first finds them.
func both(ctx context.Context, tx *sql.Tx, words, docs string, args ...any) error {
	if _, err := tx.ExecContext(ctx, words, args...); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, docs, args...)
	return err
}

// Position is how far a source was read, as SetPosition said last; 0 when never.
func (v *View) Position(ctx context.Context, source string) (uint64, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.ready(); err != nil {
		return 0, err
	}
	var seq int64
	err := v.db.QueryRowContext(ctx, getPosition, source).Scan(&seq)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read position: %w", classify(err))
	}
	return uint64(seq), nil
}

// SetPosition notes how far a source was read. Call it after the Put and Delete of what was read: it is never kept without them.
func (v *View) SetPosition(ctx context.Context, source string, seq uint64) error {
	return v.write(ctx, "store position", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, setPosition, source, int64(seq))
		return err
	})
}

// scope is the word that stands for a mesh and a kind.
func scope(mesh, kind string) string {
	sum := sha256.Sum256([]byte(mesh + "\x00" + kind))
	return "s" + hex.EncodeToString(sum[:12])
}
