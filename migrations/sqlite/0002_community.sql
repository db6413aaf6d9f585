-- What the handlers of community events write: tasks for agents, users' activity, requests to
-- the community, introductions, credits, notifications.
--
-- Tables of these names that are there already are left as they are; what a handler misses in
-- them it says with `columns_missing`. UUIDs and times are text.

CREATE TABLE IF NOT EXISTS users (
    id              TEXT PRIMARY KEY,
    verified_at     TEXT,
    -- Who talks to the user: concierge, innovator.
    poc_agent_type  VARCHAR(50),
    last_active_at  TEXT,
    last_message_at TEXT,
    -- Whoever keeps a copy of the user reads it again if the copy is older.
    caches_stale_since TEXT
);

CREATE TABLE IF NOT EXISTS user_priorities (
    id              TEXT PRIMARY KEY,
    user_id         TEXT NOT NULL,
    item            VARCHAR(100) NOT NULL,
    rank            INTEGER NOT NULL,
    -- open, done, dropped
    status          VARCHAR(50) NOT NULL DEFAULT 'open',
    created_at      TEXT NOT NULL,
    UNIQUE (user_id, item)
);

CREATE TABLE IF NOT EXISTS tasks (
    id              TEXT PRIMARY KEY,
    task_type       VARCHAR(100) NOT NULL,
    -- Who is to do it: account_manager, concierge, solution_saga.
    agent_type      VARCHAR(50) NOT NULL,
    user_id         TEXT,
    context_type    VARCHAR(50),
    context_id      TEXT,
    -- low, medium, high, urgent
    priority        VARCHAR(20) NOT NULL DEFAULT 'medium',
    -- pending, completed, failed, as the agents say
    status          VARCHAR(50) NOT NULL DEFAULT 'pending',
    context         TEXT NOT NULL,
    -- The event it follows from.
    event_id        TEXT NOT NULL,
    created_at      TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS user_responses (
    id              TEXT PRIMARY KEY,
    user_id         TEXT NOT NULL,
    conversation_id TEXT,
    response_type   VARCHAR(50) NOT NULL,
    context         TEXT,
    response        TEXT NOT NULL,
    created_at      TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS conversation_intents (
    conversation_id TEXT PRIMARY KEY,
    user_id         TEXT,
    intent          VARCHAR(100) NOT NULL,
    confidence      DOUBLE PRECISION,
    classified_at   TEXT NOT NULL
);

-- Who knows about what; kept by whoever knows the users.
CREATE TABLE IF NOT EXISTS community_experts (
    user_id         TEXT NOT NULL,
    -- In lower case.
    topic           VARCHAR(100) NOT NULL,
    PRIMARY KEY (topic, user_id)
);

CREATE TABLE IF NOT EXISTS community_requests (
    id              TEXT PRIMARY KEY,
    requesting_agent_type VARCHAR(50) NOT NULL,
    requesting_user_id TEXT,
    context_type    VARCHAR(50),
    context_id      TEXT,
    question        TEXT NOT NULL,
    category        VARCHAR(100),
    -- JSON: ["topic", …]
    expertise_needed TEXT NOT NULL,
    -- open, no_experts, answered, and what the agents make of it
    status          VARCHAR(50) NOT NULL DEFAULT 'open',
    experts_notified INTEGER NOT NULL DEFAULT 0,
    event_id        TEXT NOT NULL,
    created_at      TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS community_responses (
    id              TEXT PRIMARY KEY,
    request_id      TEXT NOT NULL,
    expert_user_id  TEXT NOT NULL,
    summary         TEXT NOT NULL,
    answer          TEXT NOT NULL,
    created_at      TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS community_responses_of ON community_responses (request_id);

CREATE TABLE IF NOT EXISTS intros (
    id              TEXT PRIMARY KEY,
    connector_user_id TEXT NOT NULL,
    innovator_id    TEXT,
    prospect_id     TEXT,
    status          VARCHAR(50) NOT NULL,
    completed_at    TEXT
);

CREATE TABLE IF NOT EXISTS credits (
    -- Made of the introduction and the user, so that no one is credited twice for one.
    id              TEXT PRIMARY KEY,
    user_id         TEXT NOT NULL,
    amount          BIGINT NOT NULL CHECK (amount > 0),
    reason          VARCHAR(50) NOT NULL,
    intro_id        TEXT,
    awarded_at      TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS credits_of ON credits (user_id);

CREATE TABLE IF NOT EXISTS notifications (
    -- The step that notifies: one notification of each for one recipient.
    cause           TEXT NOT NULL,
    recipient_id    TEXT NOT NULL,
    kind            VARCHAR(50) NOT NULL,
    about_id        TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    sent_at         TEXT,
    PRIMARY KEY (cause, recipient_id)
);

CREATE TABLE IF NOT EXISTS account_manager_runs (
    id              TEXT PRIMARY KEY,
    user_id         TEXT NOT NULL,
    processed_events INTEGER NOT NULL,
    urgent_items    INTEGER NOT NULL,
    priorities_updated INTEGER NOT NULL,
    tasks_created   INTEGER NOT NULL,
    completed_at    TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS tasks_pending ON tasks (agent_type, created_at) WHERE status = 'pending';
CREATE INDEX IF NOT EXISTS notifications_unsent ON notifications (created_at) WHERE sent_at IS NULL;
