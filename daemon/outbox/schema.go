package outbox

// migrations lead from one schema version to the next, see groupcommit.Open. A released one is never edited.
//
// recipient is computed, so it can't drift from what it is made of when the drain resolves a target. The two partial
// indexes hold only what still has to go out: they stay small however long the history gets.
var migrations = []string{`
CREATE TABLE outbox(
  seq                 INTEGER PRIMARY KEY AUTOINCREMENT,
  id                  TEXT NOT NULL UNIQUE,
  client_message_id   TEXT NOT NULL CHECK(client_message_id <> ''),
  mesh                TEXT NOT NULL CHECK(mesh <> ''),
  actor               TEXT NOT NULL CHECK(actor <> ''),
  sender_key          TEXT NOT NULL,
  kind                TEXT NOT NULL CHECK(kind IN ('dm', 'group', 'topic', 'all')),
  target              TEXT NOT NULL CHECK(target <> ''),
  target_spec         TEXT,
  priority            TEXT,
  reply_to_id         TEXT,
  meta                TEXT,
  request_fingerprint BLOB NOT NULL CHECK(length(request_fingerprint) = 32),
  payload             BLOB NOT NULL,
  enqueued_at         INTEGER NOT NULL,
  attempts            INTEGER NOT NULL DEFAULT 0,
  next_attempt_at     INTEGER NOT NULL,
  status              TEXT NOT NULL CHECK(status IN ('pending', 'inflight', 'done', 'dead', 'aborted')),
  last_error          TEXT,
  delivered_at        INTEGER,
  broker_message_id   TEXT,
  aborted_at          INTEGER,
  aborted_by          TEXT,
  superseded_by       TEXT,
  recipient           TEXT GENERATED ALWAYS AS (coalesce(target_spec, target)) VIRTUAL,
  UNIQUE(client_message_id, mesh)
);
CREATE INDEX outbox_lane ON outbox(mesh, recipient, seq) WHERE status = 'pending';
CREATE INDEX outbox_typed ON outbox(mesh, target, seq) WHERE status = 'pending';
CREATE INDEX outbox_status ON outbox(status, mesh, seq);
CREATE TABLE receipts(
  row_id    TEXT NOT NULL REFERENCES outbox(id),
  recipient TEXT NOT NULL,
  state     TEXT NOT NULL CHECK(state IN ('delivered', 'surfaced', 'answered')),
  via       TEXT NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY(row_id, recipient, state)
) WITHOUT ROWID;`, `
ALTER TABLE receipts ADD COLUMN by_name TEXT NOT NULL DEFAULT '';
ALTER TABLE receipts ADD COLUMN proven INTEGER NOT NULL DEFAULT 0;
UPDATE receipts SET proven = 1 WHERE state = 'answered';`, `
CREATE INDEX outbox_broker ON outbox(broker_message_id) WHERE broker_message_id IS NOT NULL;
CREATE INDEX outbox_reply ON outbox(reply_to_id) WHERE reply_to_id IS NOT NULL;`}

const columns = `seq, id, client_message_id, mesh, actor, sender_key, kind, target, coalesce(target_spec, ''),
 coalesce(priority, ''), coalesce(reply_to_id, ''), meta, request_fingerprint, payload, enqueued_at, attempts,
 next_attempt_at, status, coalesce(last_error, ''), coalesce(delivered_at, 0), coalesce(broker_message_id, ''),
 coalesce(aborted_at, 0), coalesce(aborted_by, ''), coalesce(superseded_by, '')`

const insertRow = `INSERT INTO outbox(id, client_message_id, mesh, actor, sender_key, kind, target, target_spec, priority,
 reply_to_id, meta, request_fingerprint, payload, enqueued_at, next_attempt_at, status)
 VALUES(?, ?, ?, ?, ?, ?, ?, nullif(?, ''), nullif(?, ''), nullif(?, ''), ?, ?, ?, ?, ?, 'pending')`

const (
	selectByCMID = `SELECT ` + columns + ` FROM outbox WHERE client_message_id = ? AND mesh = ?`
	selectByID   = `SELECT ` + columns + ` FROM outbox WHERE id = ?`
	selectByAny  = `SELECT ` + columns + ` FROM outbox WHERE client_message_id = ? ORDER BY seq DESC LIMIT 2`
	selectCounts = `SELECT mesh, status, count(*) FROM outbox GROUP BY status, mesh ORDER BY mesh, status`
	selectQueued = `SELECT EXISTS(SELECT 1 FROM outbox WHERE status = 'pending' AND mesh = ?1 AND recipient = ?2)
 OR EXISTS(SELECT 1 FROM outbox WHERE status = 'inflight' AND mesh = ?1 AND recipient = ?2)`
)

// Every transition names the state it leaves.
const (
	claimRow = `UPDATE outbox SET status = 'inflight', attempts = attempts + 1
 WHERE seq = ? AND status = 'pending' AND next_attempt_at <= ? RETURNING ` + columns
	resolveRow = `UPDATE outbox SET target_spec = ? WHERE id = ? AND status IN ('pending', 'inflight') AND target_spec IS NULL`
	sendRow    = `UPDATE outbox SET status = 'done', broker_message_id = ?, delivered_at = ?, last_error = NULL
 WHERE id = ? AND status = 'inflight'`
	releaseRow  = `UPDATE outbox SET status = 'pending', next_attempt_at = ?, last_error = ? WHERE id = ? AND status = 'inflight'`
	postponeRow = `UPDATE outbox SET status = 'pending', attempts = max(attempts - 1, 0), next_attempt_at = ?, last_error = ? WHERE id = ? AND status = 'inflight'`
	killRow     = `UPDATE outbox SET status = 'dead', last_error = ? WHERE id = ? AND status IN ('pending', 'inflight')`
	abortRow    = `UPDATE outbox SET status = 'aborted', aborted_at = ?, aborted_by = ?, superseded_by = ?
 WHERE id = ? AND status IN ('pending', 'inflight', 'dead')`
	recoverRows = `UPDATE outbox SET status = 'pending', next_attempt_at = ? WHERE status = 'inflight'`
	wakeRows    = `UPDATE outbox SET next_attempt_at = ?1 WHERE status = 'pending' AND mesh = ?2 AND next_attempt_at > ?1`
)

// A lane is the queue of one recipient of one mesh. laneHeads finds the first pending row of every lane by hopping from
// recipient to recipient in the index: its cost is the number of lanes, not of rows. A row typed as a name and not
// resolved yet may be meant for somebody whose earlier row has been resolved to a key since; it waits for that one too
// (waiting, below).
const waiting = `max(o.next_attempt_at, coalesce((SELECT max(e.next_attempt_at) FROM outbox e
 WHERE e.status = 'pending' AND e.mesh = o.mesh AND e.target = o.target AND e.seq < o.seq), 0))`

const laneHeads = `WITH RECURSIVE
 lane(recipient) AS (
  SELECT min(recipient) FROM outbox WHERE status = 'pending' AND mesh = ?1
  UNION ALL
  SELECT (SELECT min(n.recipient) FROM outbox n WHERE n.status = 'pending' AND n.mesh = ?1 AND n.recipient > lane.recipient)
  FROM lane WHERE lane.recipient IS NOT NULL),
 head(recipient, seq) AS (
  SELECT recipient, (SELECT min(f.seq) FROM outbox f
   WHERE f.status = 'pending' AND f.mesh = ?1 AND f.recipient = lane.recipient)
  FROM lane WHERE recipient IS NOT NULL)
SELECT head.recipient, ` + waiting + ` AS due FROM head CROSS JOIN outbox o ON o.seq = head.seq ORDER BY o.seq`

const laneRows = `SELECT o.seq, ` + waiting + ` FROM outbox o
 WHERE o.status = 'pending' AND o.mesh = ? AND o.recipient = ? ORDER BY o.seq LIMIT ?`
