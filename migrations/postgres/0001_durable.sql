-- What Hookyard owes and what it has done.
--
-- `events` and `event_dead_letters` begin with the columns that other services write and read;
-- their names and types are a contract, and tables that are there already are taken over.
-- Everything else is Hookyard's own: times of its own are microseconds since 1970.

CREATE TABLE IF NOT EXISTS events (
    id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    event_type      VARCHAR(100) NOT NULL,
    aggregate_id    UUID,
    aggregate_type  VARCHAR(50),
    payload         JSONB NOT NULL,
    metadata        JSONB,
    processed       BOOLEAN DEFAULT FALSE,
    version         INTEGER DEFAULT 1,
    created_at      TIMESTAMPTZ DEFAULT now(),
    created_by      VARCHAR(100)
);
ALTER TABLE events
    -- Order of insertion, where created_at ties: all rows of one transaction have the same.
    ADD COLUMN IF NOT EXISTS seq             BIGINT GENERATED ALWAYS AS IDENTITY,
    -- Rows of one lane are worked on by one instance at a time, so an aggregate is never in two.
    ADD COLUMN IF NOT EXISTS lane            SMALLINT NOT NULL GENERATED ALWAYS AS
                    ((uuid_hash_extended(COALESCE(aggregate_id, id), 0) & 63)::SMALLINT) STORED,
    -- The id the event is claimed under; the row's own when null. Ids of others are not all UUIDs.
    ADD COLUMN IF NOT EXISTS event_key       TEXT,
    -- Which run is next: one more after every run that ended, so a row set back to
    -- `processed = false` runs again.
    ADD COLUMN IF NOT EXISTS generation      INTEGER NOT NULL DEFAULT 0,
    -- pending, done, skipped, unrouted, dead_lettered
    ADD COLUMN IF NOT EXISTS status          TEXT NOT NULL DEFAULT 'pending',
    ADD COLUMN IF NOT EXISTS attempts        INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS next_attempt_at BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS last_error_class TEXT,
    ADD COLUMN IF NOT EXISTS last_error_code TEXT,
    ADD COLUMN IF NOT EXISTS processed_at    BIGINT,
    -- A delivery that push took in: its bytes, and as JSON what came beside them.
    ADD COLUMN IF NOT EXISTS original        BYTEA,
    ADD COLUMN IF NOT EXISTS delivery        TEXT;
ALTER TABLE events SET (fillfactor = 85);
CREATE INDEX events_due ON events (lane, created_at, seq) WHERE processed IS NOT TRUE;
CREATE INDEX events_by_key ON events (event_key) WHERE event_key IS NOT NULL;
CREATE INDEX events_by_aggregate ON events (aggregate_id, created_at) WHERE aggregate_id IS NOT NULL;
CREATE INDEX events_by_time ON events (created_at);
CREATE INDEX events_settled ON events (processed_at) WHERE processed;

CREATE FUNCTION hookyard_events_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hookyard_events', '');
    RETURN NULL;
END $$;
CREATE TRIGGER hookyard_events_inserted AFTER INSERT ON events
    FOR EACH STATEMENT EXECUTE FUNCTION hookyard_events_inserted();

-- An aggregate whose first event waits for its next try: the later ones wait behind it.
CREATE TABLE held_aggregates (
    aggregate       UUID PRIMARY KEY,
    event_id        UUID NOT NULL,
    until           BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS event_dead_letters (
    id              UUID PRIMARY KEY,
    event_id        UUID NOT NULL,
    event_type      VARCHAR(100) NOT NULL,
    payload         JSONB NOT NULL,
    error_message   TEXT NOT NULL,
    retry_count     INTEGER NOT NULL,
    original_created_at TIMESTAMPTZ NOT NULL,
    created_at      TIMESTAMPTZ DEFAULT now()
);
ALTER TABLE event_dead_letters
    ADD COLUMN IF NOT EXISTS seq             BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    -- The id the event was claimed under, when it is no UUID; event_id is derived from it then.
    -- Other services add rows as well, hence the defaults of what follows.
    ADD COLUMN IF NOT EXISTS event_key       TEXT,
    -- push, events, subscription, outbox
    ADD COLUMN IF NOT EXISTS source          TEXT NOT NULL DEFAULT 'events',
    ADD COLUMN IF NOT EXISTS handler         TEXT,
    ADD COLUMN IF NOT EXISTS generation      INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS error_class     TEXT NOT NULL DEFAULT 'permanent',
    ADD COLUMN IF NOT EXISTS error_code      TEXT NOT NULL DEFAULT 'other',
    -- Groups what failed for one reason: handler, class, code, message without numbers.
    ADD COLUMN IF NOT EXISTS fingerprint     TEXT NOT NULL DEFAULT 'other',
    -- open, redriven, discarded
    ADD COLUMN IF NOT EXISTS status          TEXT NOT NULL DEFAULT 'open',
    ADD COLUMN IF NOT EXISTS redrive_id      TEXT,
    ADD COLUMN IF NOT EXISTS decided_by      TEXT,
    ADD COLUMN IF NOT EXISTS decided_at      BIGINT,
    ADD COLUMN IF NOT EXISTS note            TEXT,
    ADD COLUMN IF NOT EXISTS message_id      TEXT,
    ADD COLUMN IF NOT EXISTS correlation_id  TEXT,
    ADD COLUMN IF NOT EXISTS trace_id        TEXT,
    ADD COLUMN IF NOT EXISTS original        BYTEA,
    -- What came beside the bytes, as JSON: message id, attributes, ordering key, publish time.
    ADD COLUMN IF NOT EXISTS delivery        TEXT,
    ADD COLUMN IF NOT EXISTS kept_at         BIGINT NOT NULL DEFAULT 0;
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
);
ALTER TABLE inbox SET (fillfactor = 80);
CREATE INDEX inbox_by_message ON inbox (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX inbox_by_trace ON inbox (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX inbox_by_correlation ON inbox (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX inbox_running ON inbox (lease_until) WHERE state = 1;
CREATE INDEX inbox_ended ON inbox USING brin (ended_at);

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
    seq             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
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
    data            BYTEA NOT NULL,
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
ALTER TABLE lanes SET (fillfactor = 30);
INSERT INTO lanes (kind, lane)
    SELECT kind, lane FROM generate_series(0, 1) AS kind, generate_series(0, 63) AS lane;

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
    seq             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              BIGINT NOT NULL,
    actor           TEXT NOT NULL,
    action          TEXT NOT NULL,
    target          TEXT NOT NULL,
    reason          TEXT NOT NULL,
    -- JSON
    detail          TEXT NOT NULL
);
