-- What keeps the tables small, and what recognises changes that come too late.

-- What somebody has still to decide on keeps everything about its event.
CREATE INDEX event_dead_letters_owed ON event_dead_letters
    ((COALESCE(event_key, CAST(event_id AS TEXT)))) WHERE status = 'open';
CREATE INDEX outbox_parked ON outbox (created_at) WHERE state = 2;

-- The newest change of a row that a handler has completed; only of handlers that ask for it.
CREATE TABLE subjects (
    handler         TEXT NOT NULL,
    subject         TEXT NOT NULL,
    -- When that change was made, by the publisher's clock.
    changed_at      BIGINT NOT NULL,
    event_id        TEXT NOT NULL,
    seen_at         BIGINT NOT NULL,
    PRIMARY KEY (handler, subject)
);
CREATE INDEX subjects_by_time ON subjects (seen_at);
