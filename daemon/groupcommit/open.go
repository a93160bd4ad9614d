package groupcommit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var readerPragmas = []string{"busy_timeout(5000)", "foreign_keys(1)", "query_only(1)", "cache_size(-256)"}

func writerPragmas(maxPages int64) []string {
	p := []string{"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "cache_size(-1024)"}
	if maxPages > 0 {
		p = append(p, "max_page_count("+strconv.FormatInt(maxPages, 10)+")")
	}
	return p
}

// dsn builds a file: URI. '?', '#' and '%' in the path would end it or be decoded, so the path is escaped; a Windows
// drive letter needs a leading slash.
func dsn(path string, pragmas []string, extra ...string) string {
	p := filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" && !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	q := make([]string, 0, len(pragmas)+len(extra))
	for _, v := range pragmas {
		q = append(q, "_pragma="+v)
	}
	q = append(q, extra...)
	return "file:" + (&url.URL{Path: p}).EscapedPath() + "?" + strings.Join(q, "&")
}

// check reads the whole file through a read-only connection, which neither recovers nor checkpoints on its way out: a
// damaged file stays exactly as it was found.
func check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("check database: %w", err)
	}
	if info.Size() == 0 {
		return nil
	}
	db, err := sql.Open("sqlite", dsn(path, []string{"busy_timeout(5000)", "cache_size(-256)"}, "mode=ro"))
	if err != nil {
		return fmt.Errorf("check database: %w", err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRow("PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return fmt.Errorf("check database: %w", classify(err))
	}
	if verdict != "ok" {
		return fmt.Errorf("check database: %w: %s", ErrCorrupt, verdict)
	}
	return nil
}

func migrate(ctx context.Context, conn *sql.Conn, migrations []string) error {
	var have int
	if err := conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return fmt.Errorf("read schema version: %w", classify(err))
	}
	want := len(migrations)
	if have > want {
		return fmt.Errorf("%w: schema %d, this program knows %d", ErrNewer, have, want)
	}
	if have == want {
		return nil
	}
	script := "BEGIN IMMEDIATE;\n" + strings.Join(migrations[have:], ";\n") + ";\nPRAGMA user_version = " + strconv.Itoa(want) + ";\nCOMMIT"
	if _, err := conn.ExecContext(ctx, script); err != nil {
		_, rollbackErr := conn.ExecContext(ctx, "ROLLBACK")
		return fmt.Errorf("migrate schema %d to %d: %w", have, want, errors.Join(classify(err), rollbackErr))
	}
	return nil
}

// classify puts our sentinel into the chain of an engine error.
func classify(err error) error {
	switch primaryCode(err) {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return errors.Join(ErrCorrupt, err)
	case sqlite3.SQLITE_FULL:
		return errors.Join(ErrFull, err)
	}
	return err
}

// primaryCode is the SQLite result code without its extended part, 0 for other errors.
func primaryCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}
