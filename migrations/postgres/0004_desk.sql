-- What a redrive or a replay has to run, written down when it begins: nothing that fails or
-- arrives later is taken along.
CREATE TABLE redrive_items (
    redrive_id      TEXT NOT NULL REFERENCES redrives ON DELETE CASCADE,
    n               BIGINT NOT NULL,
    -- The dead letter, or the row of `events` in a replay.
    item_id         TEXT NOT NULL,
    -- The id it is claimed under.
    event_id        TEXT NOT NULL,
    -- Items of one aggregate run one after the other.
    aggregate       TEXT NOT NULL,
    handler         TEXT,
    -- 0 waiting, 1 running, 2 ended
    state           SMALLINT NOT NULL DEFAULT 0,
    -- Chosen once: after a crash the same run goes on, and none is added.
    generation      INTEGER NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,
    outcome         TEXT,
    reason          TEXT,
    at              BIGINT NOT NULL,
    PRIMARY KEY (redrive_id, n)
);
CREATE INDEX redrive_items_due ON redrive_items (redrive_id, n) WHERE state < 2;
CREATE INDEX redrive_items_event ON redrive_items (event_id);
CREATE INDEX redrives_over ON redrives (updated_at) WHERE state <> 'running';

-- What an operator has in hand when something went wrong: an id out of somebody's log.
CREATE INDEX event_dead_letters_message ON event_dead_letters (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX event_dead_letters_trace ON event_dead_letters (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX event_dead_letters_correlation ON event_dead_letters (correlation_id)
    WHERE correlation_id IS NOT NULL;
