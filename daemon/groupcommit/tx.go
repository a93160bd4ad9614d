package groupcommit

import (
	"context"
	"database/sql"
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"
)

// Tx is what a write function works on. It is valid only until the function returns.
type Tx struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	lost  error // set once the engine may have rolled the whole transaction back
}

// statements never run under the caller's context: cancelling one would tear down the transaction of all the others.
var background = context.Background

// Exec runs a statement that returns no rows and tells how many rows it changed. Statements are prepared once and kept:
// query must come from a bounded set of texts.
func (tx *Tx) Exec(query string, args ...any) (changed int64, err error) {
	st, err := tx.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := st.ExecContext(background(), args...)
	if err != nil {
		return 0, tx.note(err)
	}
	return res.RowsAffected()
}

// Insert is Exec that returns the row number of the inserted row.
func (tx *Tx) Insert(query string, args ...any) (rowid int64, err error) {
	st, err := tx.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := st.ExecContext(background(), args...)
	if err != nil {
		return 0, tx.note(err)
	}
	return res.LastInsertId()
}

// Query runs a statement that returns rows; the caller closes them before the next statement.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	st, err := tx.prepare(query)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(background(), args...)
	if err != nil {
		return nil, tx.note(err)
	}
	return rows, nil
}

// One scans the first row of a query into dest; false means there is none.
func (tx *Tx) One(query string, args []any, dest ...any) (found bool, err error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	if !rows.Next() {
		return false, tx.note(rows.Err())
	}
	if err := rows.Scan(dest...); err != nil {
		return false, err
	}
	return true, tx.note(rows.Close())
}

func (tx *Tx) prepare(query string) (*sql.Stmt, error) {
	if tx.lost != nil {
		return nil, tx.lost
	}
	if st, ok := tx.stmts[query]; ok {
		return st, nil
	}
	st, err := tx.conn.PrepareContext(background(), query)
	if err != nil {
		return nil, tx.note(err)
	}
	tx.stmts[query] = st
	return st, nil
}

// note remembers errors after which SQLite may have rolled back by itself. A statement run after that would commit on
// its own, so Tx refuses all further ones and the whole batch fails.
func (tx *Tx) note(err error) error {
	switch primaryCode(err) {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT,
		sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		err = fmt.Errorf("write database: %w", classify(err))
		tx.lost = err
	}
	return err
}

// control runs one of the statements that frame transactions and savepoints.
func (tx *Tx) control(query string) error {
	st, ok := tx.stmts[query]
	if !ok {
		var err error
		if st, err = tx.conn.PrepareContext(background(), query); err != nil {
			return err
		}
		tx.stmts[query] = st
	}
	_, err := st.ExecContext(background())
	return err
}
