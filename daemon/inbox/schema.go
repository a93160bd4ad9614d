package inbox

// migrations lead from one schema version to the next, see groupcommit.Open. A released one is never edited.
//
// The search index holds no text of its own (external content). It is brought up to date by Search and not by a trigger
// on insert: FTS5 writes a segment at every savepoint, which made storing a message five times as slow (330 instead of
// 60 µs with 64 callers). indexed.seq is the last message it covers; text and sender name of a message never change.
var migrations = []string{`
CREATE TABLE messages(
  seq               INTEGER PRIMARY KEY AUTOINCREMENT,
  id                TEXT NOT NULL UNIQUE,
  mesh              TEXT NOT NULL CHECK(mesh <> ''),
  sender            TEXT NOT NULL CHECK(sender <> ''),
  client_message_id TEXT NOT NULL CHECK(client_message_id <> ''),
  broker_message_id TEXT,
  sender_key        TEXT NOT NULL,
  sender_member_key TEXT,
  sender_name       TEXT NOT NULL,
  recipient_key     TEXT,
  target_spec       TEXT,
  to_kind           TEXT NOT NULL CHECK(to_kind IN ('session', 'member', 'group', 'topic', 'all')),
  topic             TEXT,
  subtype           TEXT,
  priority          TEXT,
  reply_to_id       TEXT,
  body              TEXT,
  undecryptable     INTEGER NOT NULL CHECK(undecryptable IN (0, 1)),
  reason            TEXT,
  nonce             BLOB,
  ciphertext        BLOB,
  created_at        INTEGER,
  received_at       INTEGER NOT NULL,
  seen_at           INTEGER,
  CHECK(undecryptable = (body IS NULL)),
  UNIQUE(mesh, sender, client_message_id)
);
CREATE INDEX messages_unseen ON messages(mesh, seq) WHERE seen_at IS NULL;
CREATE TABLE deliveries(
  message_id  TEXT NOT NULL REFERENCES messages(id),
  session_id  TEXT NOT NULL CHECK(session_id <> ''),
  seq         INTEGER NOT NULL,
  state       TEXT NOT NULL DEFAULT 'open' CHECK(state IN ('open', 'pushed', 'surfaced')),
  via         TEXT,
  pushed_at   INTEGER,
  surfaced_at INTEGER,
  seen_at     INTEGER,
  PRIMARY KEY(message_id, session_id)
) WITHOUT ROWID;
CREATE INDEX deliveries_session ON deliveries(session_id, seq);
CREATE INDEX deliveries_waiting ON deliveries(session_id, seq) WHERE state <> 'surfaced';
CREATE VIRTUAL TABLE messages_fts USING fts5(body, sender_name, content = 'messages', content_rowid = 'seq');
CREATE TABLE indexed(seq INTEGER NOT NULL);
INSERT INTO indexed VALUES(0);`, `
CREATE INDEX messages_closed ON messages(mesh, target_spec, seq) WHERE undecryptable AND to_kind = 'topic';`, `
ALTER TABLE deliveries ADD COLUMN pushed_via TEXT;
ALTER TABLE deliveries ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN evidence TEXT;`, `
CREATE INDEX messages_cmid ON messages(client_message_id);
CREATE INDEX messages_broker ON messages(broker_message_id) WHERE broker_message_id IS NOT NULL;`, `
CREATE INDEX deliveries_open ON deliveries(session_id, seq) WHERE state = 'open';`}

// columns of messages m, in the order scanMessage reads them.
const columns = `m.id, m.seq, m.mesh, m.sender, m.client_message_id, coalesce(m.broker_message_id, ''), m.sender_key,
 coalesce(m.sender_member_key, ''), m.sender_name, coalesce(m.recipient_key, ''), coalesce(m.target_spec, ''), m.to_kind,
 coalesce(m.topic, ''), coalesce(m.subtype, ''), coalesce(m.priority, ''), coalesce(m.reply_to_id, ''),
 coalesce(m.body, ''), m.undecryptable, coalesce(m.reason, ''), m.nonce, m.ciphertext, coalesce(m.created_at, 0),
 m.received_at, coalesce(m.seen_at, 0)`

const (
	insertMessage = `INSERT INTO messages(id, mesh, sender, client_message_id, broker_message_id, sender_key,
 sender_member_key, sender_name, recipient_key, target_spec, to_kind, topic, subtype, priority, reply_to_id, body,
 undecryptable, reason, nonce, ciphertext, created_at, received_at)
 VALUES(?, ?, ?, ?, nullif(?, ''), ?, nullif(?, ''), ?, nullif(?, ''), nullif(?, ''), ?, nullif(?, ''), nullif(?, ''),
 nullif(?, ''), nullif(?, ''), ?, ?, nullif(?, ''), ?, ?, nullif(?, 0), ?)`
	selectDuplicate = `SELECT ` + columns + ` FROM messages m WHERE m.mesh = ? AND m.sender = ? AND m.client_message_id = ?`
	selectByID      = `SELECT ` + columns + ` FROM messages m WHERE m.id = ?`
	insertDelivery  = `INSERT INTO deliveries(message_id, session_id, seq) VALUES(?, ?, ?) ON CONFLICT DO NOTHING`
	deliveryColumns = `d.message_id, d.session_id, d.state, coalesce(d.pushed_via, ''), coalesce(d.pushed_at, 0), d.tries, coalesce(d.via, ''),
 coalesce(d.evidence, ''), coalesce(d.surfaced_at, 0), coalesce(d.seen_at, 0)`
	selectDelivery = `SELECT ` + deliveryColumns + ` FROM deliveries d WHERE d.message_id = ? ORDER BY d.session_id`
	waiting        = `SELECT ` + columns + `, ` + deliveryColumns + ` FROM deliveries d JOIN messages m ON m.id = d.message_id
 WHERE d.session_id = ? AND NOT (m.undecryptable AND m.to_kind = 'topic')`
	selectWaiting = waiting + ` AND d.state <> 'surfaced' ORDER BY d.seq LIMIT ?`
	selectOpen    = waiting + ` AND d.state = 'open' ORDER BY d.seq LIMIT ?`
	selectPushed  = waiting + ` AND d.state = 'pushed' AND d.pushed_via <> ? AND d.tries < ? ORDER BY d.seq LIMIT ?`
	selectVia     = waiting + ` AND d.state = 'pushed' AND d.pushed_via = ? AND d.pushed_at < ? ORDER BY d.seq LIMIT ?`
	selectShown   = waiting + ` AND d.state <> 'surfaced' AND (m.broker_message_id = ?2 OR m.id = ?2)`
	// Every transition is limited to the session's own row and to the states it may leave.
	pushDelivery = `UPDATE deliveries SET state = 'pushed', pushed_via = ?, pushed_at = ?, tries = tries + 1
 WHERE message_id = ? AND session_id = ? AND state <> 'surfaced'`
	surfaceDelivery = `UPDATE deliveries SET state = 'surfaced', via = ?, evidence = ?, surfaced_at = ?
 WHERE message_id = ? AND session_id = ? AND state <> 'surfaced'`
	dropWaiting = `DELETE FROM deliveries WHERE session_id = ? AND state <> 'surfaced'`
	seeDelivery = `UPDATE deliveries SET seen_at = ? WHERE message_id = ? AND session_id = ? AND seen_at IS NULL`
	seeMessage  = `UPDATE messages SET seen_at = ? WHERE id = ? AND seen_at IS NULL`
)

// indexMore takes the next messages into the search index and moves the mark over them, in one write.
const (
	indexMore = `INSERT INTO messages_fts(rowid, body, sender_name)
 SELECT seq, body, sender_name FROM messages WHERE seq > (SELECT seq FROM indexed) ORDER BY seq LIMIT ?1`
	moveMark = `UPDATE indexed SET seq = coalesce((SELECT max(seq) FROM
 (SELECT seq FROM messages WHERE seq > (SELECT seq FROM indexed) ORDER BY seq LIMIT ?1)), seq)`
	unindexed = `SELECT EXISTS(SELECT 1 FROM messages WHERE seq > (SELECT seq FROM indexed))`
)

// Posts of topics whose key was not here when they came. Index rows hold the words as they were: what is searched for again is taken out and put in anew.
const (
	selectClosed = `SELECT ` + columns + ` FROM messages m WHERE m.mesh = ? AND m.target_spec = ? AND m.undecryptable AND m.to_kind = 'topic'
 AND m.ciphertext IS NOT NULL AND m.seq > ? ORDER BY m.seq LIMIT ?`
	dropWords = `INSERT INTO messages_fts(messages_fts, rowid, body, sender_name)
 SELECT 'delete', seq, body, sender_name FROM messages WHERE id = ? AND undecryptable AND seq <= (SELECT seq FROM indexed)`
	openMessage = `UPDATE messages SET body = ?, undecryptable = 0, reason = NULL, nonce = NULL, ciphertext = NULL, seen_at = NULL WHERE id = ? AND undecryptable`
	unseeOpened = `UPDATE deliveries SET seen_at = NULL WHERE message_id = ?`
	addWords    = `INSERT INTO messages_fts(rowid, body, sender_name)
 SELECT seq, body, sender_name FROM messages WHERE id = ? AND seq <= (SELECT seq FROM indexed)`
)

// Messages nobody has: unseen by the user and without any delivery row.
const orphans = `SELECT ` + columns + ` FROM messages m WHERE m.mesh = ? AND m.seen_at IS NULL
 AND NOT EXISTS(SELECT 1 FROM deliveries d WHERE d.message_id = m.id)`

const (
	multicastOrphans = orphans + ` AND m.to_kind IN ('member', 'group', 'topic', 'all') ORDER BY m.seq`
	keyOrphans       = orphans + ` AND m.recipient_key = ? AND m.to_kind = 'session' ORDER BY m.seq`
)
