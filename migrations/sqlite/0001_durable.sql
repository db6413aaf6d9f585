-- What Hookyard owes and what it has done.
--
-- `events` and `event_dead_letters` begin with the columns that other services write and
-- read; their names are a contract, their types what SQLite has for it.
-- Everything else is Hookyard's own: times of its own are microseconds since 1970.

CREATE TABLE events (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE DEFAULT (lower(
                        hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' ||
                        substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) ||
                        '-' || hex(randomblob(6)))),
    event_type      VARCHAR(100) NOT NULL,
    aggregate_id    TEXT,
    aggregate_type  VARCHAR(50),
    payload         TEXT NOT NULL,
    metadata        TEXT,
    processed       BOOLEAN DEFAULT FALSE,
    version         INTEGER DEFAULT 1,
    created_at      TEXT DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    created_by      VARCHAR(100),
    -- Rows of one lane are worked on by one instance at a time, so an aggregate is never in two.
    lane            SMALLINT NOT NULL GENERATED ALWAYS AS
                    ((instr('0123456789abcdef', lower(substr(COALESCE(aggregate_id, id), -1))) +
                    16 * instr('0123456789abcdef', lower(substr(COALESCE(aggregate_id, id), -2, 1)))
                    ) & 63) STORED,
    -- The id the event is claimed under; the row's own when null. Ids of others are not all UUIDs.
    event_key       TEXT,
    -- Which run is next: one more after every run that ended, so a row set back to
    -- `processed = false` runs again.
    generation      INTEGER NOT NULL DEFAULT 0,
    -- pending, done, skipped, unrouted, dead_lettered
    status          TEXT NOT NULL DEFAULT 'pending',
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at BIGINT NOT NULL DEFAULT 0,
    last_error_class TEXT,
    last_error_code TEXT,
    processed_at    BIGINT,
    -- A delivery that push took in: its bytes, and as JSON what came beside them.
    original        BLOB,
    delivery        TEXT
);
CREATE INDEX events_due ON events (lane, created_at, seq) WHERE processed IS NOT TRUE;
CREATE INDEX events_by_key ON events (event_key) WHERE event_key IS NOT NULL;
CREATE INDEX events_by_aggregate ON events (aggregate_id, created_at) WHERE aggregate_id IS NOT NULL;
CREATE INDEX events_by_time ON events (created_at);
CREATE INDEX events_settled ON events (processed_at) WHERE processed;

-- An aggregate whose first event waits for its next try: the later ones wait behind it.
CREATE TABLE held_aggregates (
    aggregate       TEXT PRIMARY KEY,
    event_id        TEXT NOT NULL,
    until           BIGINT NOT NULL
);

CREATE TABLE event_dead_letters (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    event_id        TEXT NOT NULL,
    event_type      VARCHAR(100) NOT NULL,
    payload         TEXT NOT NULL,
    error_message   TEXT NOT NULL,
    retry_count     INTEGER NOT NULL,
    original_created_at TEXT NOT NULL,
    created_at      TEXT DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    -- The id the event was claimed under, when it is no UUID; event_id is derived from it then.
    -- Other services add rows as well, hence the defaults of what follows.
    event_key       TEXT,
    -- push, events, subscription, outbox
    source          TEXT NOT NULL DEFAULT 'events',
    handler         TEXT,
    generation      INTEGER NOT NULL DEFAULT 0,
    error_class     TEXT NOT NULL DEFAULT 'permanent',
    error_code      TEXT NOT NULL DEFAULT 'other',
    -- Groups what failed for one reason: handler, class, code, message without numbers.
    fingerprint     TEXT NOT NULL DEFAULT 'other',
    -- open, redriven, discarded
    status          TEXT NOT NULL DEFAULT 'open',
    redrive_id      TEXT,
    decided_by      TEXT,
    decided_at      BIGINT,
    note            TEXT,
    message_id      TEXT,
    correlation_id  TEXT,
    trace_id        TEXT,
    original        BLOB,
    -- What came beside the bytes, as JSON: message id, attributes, ordering key, publish time.
    delivery        TEXT,
    kept_at         BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX event_dead_letters_open ON event_dead_letters (seq) WHERE status = 'open';
CREATE INDEX event_dead_letters_group ON event_dead_letters (fingerprint, seq);
CREATE INDEX event_dead_letters_event ON event_dead_letters (event_id);
CREATE INDEX event_dead_letters_decided ON event_dead_letters (decided_at) WHERE status <> 'open';

-- Who has run what.
CREATE TABLE inbox (
    event_id        TEXT NOT NULL,
    handler         TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    -- 0 given back, 1 running, 2 ended well, 3 ended as a dead letter
    state           SMALLINT NOT NULL,
    fence           BIGINT NOT NULL,
    lease_until     BIGINT NOT NULL,
    attempt         INTEGER NOT NULL,
    outcome         TEXT,
    reason          TEXT,
    event_type      TEXT NOT NULL,
    -- Null where what is compared would not be what the sender wrote.
    body_hash       BIGINT,
    hasura_id       TEXT,
    message_id      TEXT,
    hasura_retry    INTEGER,
    -- Null when it is the event's own id.
    correlation_id  TEXT,
    trace_id        TEXT,
    instance        TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    started_at      BIGINT NOT NULL,
    ended_at        BIGINT,
    PRIMARY KEY (event_id, handler, generation)
) WITHOUT ROWID;
CREATE INDEX inbox_by_message ON inbox (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX inbox_by_trace ON inbox (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX inbox_by_correlation ON inbox (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX inbox_running ON inbox (lease_until) WHERE state = 1;
CREATE INDEX inbox_ended ON inbox (ended_at);

-- A try that failed and will be made again.
CREATE TABLE failures (
    event_id        TEXT NOT NULL,
    handler         TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    attempt         INTEGER NOT NULL,
    error_class     TEXT NOT NULL,
    error_code      TEXT NOT NULL,
    error_message   TEXT NOT NULL,
    failed_at       BIGINT NOT NULL
);
CREATE INDEX failures_by_event ON failures (event_id);
CREATE INDEX failures_by_time ON failures (failed_at);

-- An event that came again after it had ended.
CREATE TABLE repeats (
    event_id        TEXT NOT NULL,
    handler         TEXT NOT NULL,
    -- pubsub_redelivery, hasura_retry, double_publish, operator_redelivery, id_reuse
    kind            TEXT NOT NULL,
    message_id      TEXT,
    hasura_retry    INTEGER,
    ran_again       BOOLEAN NOT NULL,
    came_at         BIGINT NOT NULL
);
CREATE INDEX repeats_by_event ON repeats (event_id);
CREATE INDEX repeats_by_message ON repeats (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX repeats_by_time ON repeats (came_at);

-- What is still to be published.
CREATE TABLE outbox (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    lane            SMALLINT NOT NULL,
    -- Id of the emitted event, the same on every run: a second run adds no second row.
    message_id      TEXT NOT NULL UNIQUE,
    topic           TEXT NOT NULL,
    ordering_key    TEXT,
    event_type      TEXT NOT NULL,
    cause_id        TEXT NOT NULL,
    handler         TEXT NOT NULL,
    correlation_id  TEXT,
    trace_id        TEXT,
    data            BLOB NOT NULL,
    -- JSON: [["name", "value"], …]
    attributes      TEXT NOT NULL,
    -- 0 waiting, 1 published, 2 parked as a dead letter
    state           SMALLINT NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,
    last_error_code TEXT,
    created_at      BIGINT NOT NULL,
    published_at    BIGINT,
    broker_message_id TEXT
);
CREATE INDEX outbox_waiting ON outbox (lane, seq) WHERE state = 0;
CREATE INDEX outbox_by_cause ON outbox (cause_id);
CREATE INDEX outbox_published ON outbox (published_at) WHERE state = 1;

-- The right to work on a lane: 0 of events, 1 of the outbox.
CREATE TABLE lanes (
    kind            SMALLINT NOT NULL,
    lane            SMALLINT NOT NULL,
    fence           BIGINT NOT NULL DEFAULT 0,
    lease_until     BIGINT NOT NULL DEFAULT 0,
    -- Not to be worked on before: an upstream rests, or the broker refuses.
    paused_until    BIGINT NOT NULL DEFAULT 0,
    failures        INTEGER NOT NULL DEFAULT 0,
    holder          TEXT,
    PRIMARY KEY (kind, lane)
);
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 127)
    INSERT INTO lanes (kind, lane) SELECT n / 64, n % 64 FROM numbers;

-- Long work on many events at once: a redrive of dead letters, a replay of processed events.
CREATE TABLE redrives (
    id              TEXT PRIMARY KEY,
    -- dead_letters, replay
    kind            TEXT NOT NULL,
    -- JSON: what was asked for
    query           TEXT NOT NULL,
    -- if_not_done, force
    mode            TEXT NOT NULL,
    per_second      INTEGER NOT NULL,
    -- Fixed at the start: nothing that fails later is taken along.
    last_seq        BIGINT NOT NULL,
    next_seq        BIGINT NOT NULL,
    total           BIGINT NOT NULL,
    done            BIGINT NOT NULL DEFAULT 0,
    failed          BIGINT NOT NULL DEFAULT 0,
    skipped         BIGINT NOT NULL DEFAULT 0,
    -- running, finished, aborted
    state           TEXT NOT NULL,
    actor           TEXT NOT NULL,
    reason          TEXT NOT NULL,
    fence           BIGINT NOT NULL DEFAULT 0,
    lease_until     BIGINT NOT NULL DEFAULT 0,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
CREATE INDEX redrives_running ON redrives (created_at) WHERE state = 'running';

CREATE TABLE audit (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    at              BIGINT NOT NULL,
    actor           TEXT NOT NULL,
    action          TEXT NOT NULL,
    target          TEXT NOT NULL,
    reason          TEXT NOT NULL,
    -- JSON
    detail          TEXT NOT NULL
);
