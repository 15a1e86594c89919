"""The first form of the home store."""

import sqlite3

_STATEMENTS = (
    # One row: what the whole store is.
    """CREATE TABLE store (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        epoch TEXT NOT NULL,                             -- changes of two epochs have nothing to do with each other
        floor INTEGER NOT NULL DEFAULT 0,                -- the last change that was forgotten
        statement_seq INTEGER NOT NULL DEFAULT 0,        -- the highest number of a key statement; it never falls
        keys_revision INTEGER NOT NULL DEFAULT 0,        -- rises with each change of the list of API keys
        devices_revision INTEGER NOT NULL DEFAULT 0,     -- rises with each change of who is let in
        forgettings INTEGER NOT NULL DEFAULT 0           -- how often every device was forgotten, for a new identity
    ) STRICT""",
    "INSERT INTO store (id, epoch) VALUES (1, lower(hex(randomblob(8))))",
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE conversations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
        created REAL NOT NULL,
        updated REAL NOT NULL,
        leaf INTEGER,                                    -- the active path ends there
        FOREIGN KEY (seq, leaf) REFERENCES messages (conversation, seq) DEFERRABLE INITIALLY DEFERRED
    ) STRICT""",
    "CREATE INDEX conversations_updated ON conversations (updated, seq)",
    # A parent is of the same conversation and older, so a tree has no cycle. No cascade from parent to child: SQLite
    # follows one for 1,000 steps only, and a conversation may be longer.
    """CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        conversation INTEGER NOT NULL REFERENCES conversations (seq) ON DELETE CASCADE,
        parent INTEGER CHECK (parent < seq),
        role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
        content TEXT NOT NULL,
        thinking TEXT NOT NULL DEFAULT '',
        tool_calls TEXT NOT NULL DEFAULT '',             -- a line of JSON each
        model TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL,
        UNIQUE (conversation, seq),
        FOREIGN KEY (conversation, parent) REFERENCES messages (conversation, seq) DEFERRABLE INITIALLY DEFERRED
    ) STRICT""",
    "CREATE INDEX messages_parent ON messages (conversation, parent)",
    "CREATE INDEX conversations_leaf ON conversations (seq, leaf)",
    """CREATE TABLE attachments (
        sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL, added REAL NOT NULL, data BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE message_attachments (
        message INTEGER NOT NULL REFERENCES messages (seq) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        sha256 TEXT NOT NULL REFERENCES attachments (sha256),
        name TEXT NOT NULL,
        media_type TEXT NOT NULL,
        PRIMARY KEY (message, position)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX message_attachments_sha256 ON message_attachments (sha256)",
    """CREATE TABLE runs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        conversation INTEGER NOT NULL REFERENCES conversations (seq) ON DELETE CASCADE,
        message INTEGER NOT NULL UNIQUE REFERENCES messages (seq) ON DELETE CASCADE,
        model TEXT NOT NULL,
        options TEXT NOT NULL,
        state TEXT NOT NULL
            CHECK (state IN ('queued', 'loading', 'streaming', 'done', 'stopped', 'failed', 'interrupted')),
        reason TEXT NOT NULL DEFAULT '',
        detail TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL,
        ended REAL,
        size INTEGER NOT NULL DEFAULT 0,                 -- bytes of text
        layout TEXT NOT NULL DEFAULT '[]',               -- of one that ended: kinds of text and their bytes
        prompt_tokens INTEGER,
        answer_tokens INTEGER,
        taken_up INTEGER NOT NULL DEFAULT 0              -- times that it went on after the bridge's end
    ) STRICT""",
    "CREATE INDEX runs_conversation ON runs (conversation)",
    "CREATE INDEX runs_active ON runs (state) WHERE state IN ('queued', 'loading', 'streaming')",
    # Text of runs that have not ended; then it moves into the message.
    """CREATE TABLE run_text (
        run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
        at INTEGER NOT NULL,                             -- bytes of text before this
        size INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('content', 'thinking', 'tool_call')),
        text TEXT NOT NULL,
        PRIMARY KEY (run, at)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE devices (
        id TEXT PRIMARY KEY,
        point BLOB NOT NULL,
        name TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'paired')),
        approved_by TEXT NOT NULL DEFAULT '',            -- a device's id, 'link' or 'local'
        added REAL NOT NULL,
        last_seen REAL
    ) STRICT""",
    """CREATE TRIGGER device_added AFTER INSERT ON devices BEGIN
        UPDATE store SET devices_revision = devices_revision + 1; END""",
    """CREATE TRIGGER device_edited AFTER UPDATE OF id, point, state ON devices BEGIN
        UPDATE store SET devices_revision = devices_revision + 1; END""",
    """CREATE TRIGGER device_gone AFTER DELETE ON devices BEGIN
        UPDATE store SET devices_revision = devices_revision + 1; END""",
    # Pairing links on their way from the owner's command to the bridge that runs.
    "CREATE TABLE pairing_offers (secret BLOB PRIMARY KEY, made REAL NOT NULL) STRICT, WITHOUT ROWID",
    # Of a device that was removed its id stays, so that no back-up brings it back.
    "CREATE TABLE removed_devices (id TEXT PRIMARY KEY, removed REAL NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE keys (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, scope TEXT NOT NULL, created INTEGER NOT NULL,
        expires INTEGER NOT NULL, last_used REAL, revoked REAL, day INTEGER NOT NULL DEFAULT 0,
        tokens INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    """CREATE TRIGGER key_added AFTER INSERT ON keys BEGIN
        UPDATE store SET keys_revision = keys_revision + 1; END""",
    """CREATE TRIGGER key_edited AFTER UPDATE OF name, scope, expires, revoked ON keys BEGIN
        UPDATE store SET keys_revision = keys_revision + 1; END""",
    """CREATE TRIGGER key_gone AFTER DELETE ON keys BEGIN
        UPDATE store SET keys_revision = keys_revision + 1; END""",
    """CREATE TABLE changes (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        conversation TEXT NOT NULL DEFAULT '',
        gone INTEGER NOT NULL CHECK (gone IN (0, 1))
    ) STRICT""",
    """CREATE VIRTUAL TABLE title_text USING fts5(
        title, content = 'conversations', content_rowid = 'seq', tokenize = 'unicode61 remove_diacritics 2')""",
    """CREATE TRIGGER title_added AFTER INSERT ON conversations BEGIN
        INSERT INTO title_text (rowid, title) VALUES (new.seq, new.title); END""",
    """CREATE TRIGGER title_gone AFTER DELETE ON conversations BEGIN
        INSERT INTO title_text (title_text, rowid, title) VALUES ('delete', old.seq, old.title); END""",
    """CREATE TRIGGER title_edited AFTER UPDATE OF title ON conversations BEGIN
        INSERT INTO title_text (title_text, rowid, title) VALUES ('delete', old.seq, old.title);
        INSERT INTO title_text (rowid, title) VALUES (new.seq, new.title); END""",
    """CREATE VIRTUAL TABLE message_text USING fts5(
        content, content = 'messages', content_rowid = 'seq', tokenize = 'unicode61 remove_diacritics 2')""",
    """CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
        INSERT INTO message_text (rowid, content) VALUES (new.seq, new.content); END""",
    """CREATE TRIGGER message_gone AFTER DELETE ON messages BEGIN
        INSERT INTO message_text (message_text, rowid, content) VALUES ('delete', old.seq, old.content); END""",
    """CREATE TRIGGER message_edited AFTER UPDATE OF content ON messages BEGIN
        INSERT INTO message_text (message_text, rowid, content) VALUES ('delete', old.seq, old.content);
        INSERT INTO message_text (rowid, content) VALUES (new.seq, new.content); END""",
)


def upgrade(db: sqlite3.Connection) -> None:
    """Make everything."""
    db.execute("BEGIN IMMEDIATE")
    for statement in _STATEMENTS:
        db.execute(statement)


def downgrade(db: sqlite3.Connection) -> None:
    """Refuse: there is nothing before it."""
    raise NotImplementedError("expected no way back from the first form of the store; restore a back-up instead")
