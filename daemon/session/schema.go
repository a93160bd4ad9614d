package session

// migrations lead from one schema version to the next, see groupcommit.Open. A released one is never edited.
var migrations = []string{`
CREATE TABLE sessions(
  id            TEXT PRIMARY KEY CHECK(id <> ''),
  mesh          TEXT NOT NULL,
  name          TEXT NOT NULL,
  key_secret    TEXT NOT NULL,
  public_key    TEXT NOT NULL,
  token_hash    BLOB NOT NULL CHECK(length(token_hash) = 32),
  pid           INTEGER NOT NULL,
  start_time    TEXT NOT NULL,
  cwd           TEXT NOT NULL,
  role          TEXT NOT NULL,
  "groups"      TEXT NOT NULL,
  caps          TEXT,
  only_mesh     INTEGER NOT NULL,
  registered_at INTEGER NOT NULL,
  last_seen_at  INTEGER NOT NULL,
  ended_at      INTEGER
);
CREATE UNIQUE INDEX sessions_token ON sessions(token_hash) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX sessions_key ON sessions(mesh, public_key) WHERE ended_at IS NULL;
CREATE TABLE identities(
  mesh       TEXT NOT NULL,
  name       TEXT NOT NULL,
  public_key TEXT NOT NULL,
  secret     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY(mesh, public_key)
);
CREATE INDEX identities_name ON identities(mesh, name);
CREATE TABLE peers(
  mesh         TEXT NOT NULL,
  key          TEXT NOT NULL,
  member_key   TEXT NOT NULL,
  name         TEXT NOT NULL,
  peer_role    TEXT NOT NULL,
  "groups"     TEXT NOT NULL,
  last_seen_at INTEGER NOT NULL,
  PRIMARY KEY(mesh, key)
) WITHOUT ROWID;
CREATE INDEX peers_age ON peers(mesh, last_seen_at);`, `
ALTER TABLE sessions ADD COLUMN presence BLOB;`, `
ALTER TABLE sessions ADD COLUMN wake BLOB;`, `
ALTER TABLE sessions ADD COLUMN message_mode TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN nudge INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN conversation TEXT NOT NULL DEFAULT '';
CREATE TABLE conversations(
  mesh       TEXT NOT NULL,
  id         TEXT NOT NULL CHECK(id <> ''),
  public_key TEXT NOT NULL,
  name       TEXT NOT NULL,
  role       TEXT NOT NULL,
  "groups"   TEXT NOT NULL,
  cwd        TEXT NOT NULL,
  used_at    INTEGER NOT NULL,
  PRIMARY KEY(mesh, id)
) WITHOUT ROWID;
CREATE INDEX conversations_age ON conversations(mesh, used_at);
CREATE INDEX conversations_cwd ON conversations(mesh, cwd, used_at);`, `
ALTER TABLE sessions ADD COLUMN parent TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_parent ON sessions(parent) WHERE ended_at IS NULL AND parent <> '';`, `
CREATE TABLE known_names(
  mesh          TEXT NOT NULL,
  name          TEXT NOT NULL,
  member_key    TEXT NOT NULL,
  first_seen_at INTEGER NOT NULL,
  last_seen_at  INTEGER NOT NULL,
  accepted      INTEGER NOT NULL,
  PRIMARY KEY(mesh, name, member_key)
) WITHOUT ROWID;
CREATE TABLE verified_members(
  mesh        TEXT NOT NULL,
  member_key  TEXT NOT NULL,
  verified_at INTEGER NOT NULL,
  PRIMARY KEY(mesh, member_key)
) WITHOUT ROWID;`}

const columns = `id, mesh, name, key_secret, public_key, token_hash, pid, start_time, cwd, role, "groups", caps, only_mesh,
 registered_at, last_seen_at, coalesce(ended_at, 0), presence, parent, wake, message_mode, nudge, conversation`

const (
	selectByID    = `SELECT ` + columns + ` FROM sessions WHERE id = ?`
	selectByToken = `SELECT ` + columns + ` FROM sessions WHERE token_hash = ? AND ended_at IS NULL`
	selectLive    = `SELECT ` + columns + ` FROM sessions WHERE ended_at IS NULL ORDER BY registered_at, id`
	insertSession = `INSERT INTO sessions(id, mesh, name, key_secret, public_key, token_hash, pid, start_time, cwd, role,
 "groups", caps, only_mesh, registered_at, last_seen_at, parent, message_mode, nudge, conversation)
 VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	selectChildren = `SELECT ` + columns + ` FROM sessions WHERE parent = ? AND ended_at IS NULL AND parent <> '' ORDER BY registered_at, id`
	deleteSession  = `DELETE FROM sessions WHERE id = ?`
	touchSession   = `UPDATE sessions SET last_seen_at = ? WHERE id = ? AND ended_at IS NULL`
	setGroups      = `UPDATE sessions SET "groups" = ? WHERE id = ? AND ended_at IS NULL`
	setPresence    = `UPDATE sessions SET presence = ? WHERE id = ? AND ended_at IS NULL`
	setWake        = `UPDATE sessions SET wake = ? WHERE id = ? AND ended_at IS NULL`
	endSession     = `UPDATE sessions SET ended_at = ? WHERE id = ? AND ended_at IS NULL RETURNING ` + columns
	// reapSession ends the registration that was judged and not one that has taken its id since.
	reapSession = `UPDATE sessions SET ended_at = ? WHERE id = ? AND ended_at IS NULL AND pid = ? AND start_time = ?
 AND registered_at = ? AND token_hash = ? RETURNING ` + columns

	// freeIdentity prefers the key the session id had before (?3), then the name's oldest.
	freeIdentity = `SELECT public_key, secret FROM identities i WHERE mesh = ?1 AND name = ?2
 AND NOT EXISTS(SELECT 1 FROM sessions s WHERE s.mesh = i.mesh AND s.public_key = i.public_key AND s.ended_at IS NULL)
 ORDER BY public_key = ?3 DESC, created_at, rowid LIMIT 1`
	insertIdentity = `INSERT INTO identities(mesh, name, public_key, secret, created_at) VALUES(?, ?, ?, ?, ?)`

	setConversation = `UPDATE sessions SET conversation = ?1 WHERE id = ?2 AND ended_at IS NULL RETURNING ` + columns
	// keepConversation also moves a conversation to the key of the session that has it now.
	keepConversation = `INSERT INTO conversations(mesh, id, public_key, name, role, "groups", cwd, used_at) VALUES(?, ?, ?, ?, ?, ?, ?, ?)
 ON CONFLICT(mesh, id) DO UPDATE SET public_key = excluded.public_key, name = excluded.name, role = excluded.role,
 "groups" = excluded."groups", cwd = excluded.cwd, used_at = excluded.used_at`
	touchConversation  = `UPDATE conversations SET used_at = ? WHERE mesh = ? AND id = ?`
	selectConversation = `SELECT id, public_key, name, role, "groups" FROM conversations WHERE mesh = ? AND id = ?`
	lastConversation   = `SELECT id, public_key, name, role, "groups" FROM conversations WHERE mesh = ? AND cwd = ?
 ORDER BY used_at DESC, id LIMIT 1`
	pruneConversations = `DELETE FROM conversations WHERE mesh = ?1 AND id IN
 (SELECT id FROM conversations WHERE mesh = ?1 ORDER BY used_at DESC, id LIMIT -1 OFFSET ?2)`
	selectHolder   = `SELECT ` + columns + ` FROM sessions WHERE mesh = ? AND public_key = ? AND ended_at IS NULL`
	selectIdentity = `SELECT secret FROM identities WHERE mesh = ? AND public_key = ?`

	upsertPeer = `INSERT INTO peers(mesh, key, member_key, name, peer_role, "groups", last_seen_at) VALUES(?, ?, ?, ?, ?, ?, ?)
 ON CONFLICT(mesh, key) DO UPDATE SET member_key = excluded.member_key, name = excluded.name, peer_role = excluded.peer_role,
 "groups" = excluded."groups", last_seen_at = max(last_seen_at, excluded.last_seen_at)`
	prunePeers = `DELETE FROM peers WHERE mesh = ?1 AND key IN
 (SELECT key FROM peers WHERE mesh = ?1 ORDER BY last_seen_at DESC LIMIT -1 OFFSET ?2)`
	selectPeers = `SELECT mesh, key, member_key, name, peer_role, "groups", last_seen_at FROM peers WHERE mesh = ?
 ORDER BY last_seen_at DESC, key`
)
