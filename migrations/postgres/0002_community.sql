-- What the handlers of community events write: tasks for agents, users' activity, requests to
-- the community, introductions, credits, notifications.
--
-- Tables of these names that are there already are left as they are: other services own them.
-- What is missing in them is told by a warning here, and by `columns_missing` when a handler
-- writes; the rest of Hookyard does not need them.

CREATE TABLE IF NOT EXISTS users (
    id              UUID PRIMARY KEY,
    verified_at     TIMESTAMPTZ,
    -- Who talks to the user: concierge, innovator.
    poc_agent_type  VARCHAR(50),
    last_active_at  TIMESTAMPTZ,
    last_message_at TIMESTAMPTZ,
    -- Whoever keeps a copy of the user reads it again if the copy is older.
    caches_stale_since TIMESTAMPTZ
);

CREATE TABLE IF NOT EXISTS user_priorities (
    id              UUID PRIMARY KEY,
    user_id         UUID NOT NULL,
    item            VARCHAR(100) NOT NULL,
    rank            INTEGER NOT NULL,
    -- open, done, dropped
    status          VARCHAR(50) NOT NULL DEFAULT 'open',
    created_at      TIMESTAMPTZ NOT NULL,
    UNIQUE (user_id, item)
);

CREATE TABLE IF NOT EXISTS tasks (
    id              UUID PRIMARY KEY,
    task_type       VARCHAR(100) NOT NULL,
    -- Who is to do it: account_manager, concierge, solution_saga.
    agent_type      VARCHAR(50) NOT NULL,
    user_id         UUID,
    context_type    VARCHAR(50),
    context_id      TEXT,
    -- low, medium, high, urgent
    priority        VARCHAR(20) NOT NULL DEFAULT 'medium',
    -- pending, completed, failed, as the agents say
    status          VARCHAR(50) NOT NULL DEFAULT 'pending',
    context         JSONB NOT NULL,
    -- The event it follows from.
    event_id        TEXT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL
);

CREATE TABLE IF NOT EXISTS user_responses (
    id              UUID PRIMARY KEY,
    user_id         UUID NOT NULL,
    conversation_id TEXT,
    response_type   VARCHAR(50) NOT NULL,
    context         TEXT,
    response        TEXT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL
);

CREATE TABLE IF NOT EXISTS conversation_intents (
    conversation_id TEXT PRIMARY KEY,
    user_id         UUID,
    intent          VARCHAR(100) NOT NULL,
    confidence      DOUBLE PRECISION,
    classified_at   TIMESTAMPTZ NOT NULL
);

-- Who knows about what; kept by whoever knows the users.
CREATE TABLE IF NOT EXISTS community_experts (
    user_id         UUID NOT NULL,
    -- In lower case.
    topic           VARCHAR(100) NOT NULL,
    PRIMARY KEY (topic, user_id)
);

CREATE TABLE IF NOT EXISTS community_requests (
    id              UUID PRIMARY KEY,
    requesting_agent_type VARCHAR(50) NOT NULL,
    requesting_user_id UUID,
    context_type    VARCHAR(50),
    context_id      TEXT,
    question        TEXT NOT NULL,
    category        VARCHAR(100),
    -- JSON: ["topic", …]
    expertise_needed JSONB NOT NULL,
    -- open, no_experts, answered, and what the agents make of it
    status          VARCHAR(50) NOT NULL DEFAULT 'open',
    experts_notified INTEGER NOT NULL DEFAULT 0,
    event_id        TEXT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL
);

CREATE TABLE IF NOT EXISTS community_responses (
    id              TEXT PRIMARY KEY,
    request_id      UUID NOT NULL,
    expert_user_id  UUID NOT NULL,
    summary         TEXT NOT NULL,
    answer          TEXT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL
);
CREATE INDEX IF NOT EXISTS community_responses_of ON community_responses (request_id);

CREATE TABLE IF NOT EXISTS intros (
    id              UUID PRIMARY KEY,
    connector_user_id UUID NOT NULL,
    innovator_id    UUID,
    prospect_id     UUID,
    status          VARCHAR(50) NOT NULL,
    completed_at    TIMESTAMPTZ
);

CREATE TABLE IF NOT EXISTS credits (
    -- Made of the introduction and the user, so that no one is credited twice for one.
    id              UUID PRIMARY KEY,
    user_id         UUID NOT NULL,
    amount          BIGINT NOT NULL CHECK (amount > 0),
    reason          VARCHAR(50) NOT NULL,
    intro_id        UUID,
    awarded_at      TIMESTAMPTZ NOT NULL
);
CREATE INDEX IF NOT EXISTS credits_of ON credits (user_id);

CREATE TABLE IF NOT EXISTS notifications (
    -- The step that notifies: one notification of each for one recipient.
    cause           UUID NOT NULL,
    recipient_id    UUID NOT NULL,
    kind            VARCHAR(50) NOT NULL,
    about_id        TEXT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    sent_at         TIMESTAMPTZ,
    PRIMARY KEY (cause, recipient_id)
);

CREATE TABLE IF NOT EXISTS account_manager_runs (
    id              UUID PRIMARY KEY,
    user_id         UUID NOT NULL,
    processed_events INTEGER NOT NULL,
    urgent_items    INTEGER NOT NULL,
    priorities_updated INTEGER NOT NULL,
    tasks_created   INTEGER NOT NULL,
    completed_at    TIMESTAMPTZ NOT NULL
);

DO $$
DECLARE
    lacking TEXT;
BEGIN
    SELECT string_agg(wanted.tab || '.' || wanted.col, ', ') INTO lacking
    FROM (VALUES
        ('users', 'id'), ('users', 'verified_at'), ('users', 'poc_agent_type'),
        ('users', 'last_active_at'), ('users', 'last_message_at'), ('users', 'caches_stale_since'),
        ('user_priorities', 'item'), ('user_priorities', 'rank'),
        ('tasks', 'task_type'), ('tasks', 'agent_type'), ('tasks', 'user_id'),
        ('tasks', 'context_type'), ('tasks', 'context_id'), ('tasks', 'priority'),
        ('tasks', 'status'), ('tasks', 'context'), ('tasks', 'event_id'),
        ('community_requests', 'expertise_needed'), ('community_requests', 'experts_notified'),
        ('intros', 'connector_user_id'), ('intros', 'status'), ('intros', 'completed_at'),
        ('credits', 'user_id'), ('credits', 'amount'), ('credits', 'intro_id'),
        ('notifications', 'cause'), ('notifications', 'recipient_id'), ('notifications', 'about_id')
    ) AS wanted (tab, col)
    WHERE NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass(wanted.tab) AND attname = wanted.col AND NOT attisdropped);
    IF lacking IS NULL THEN
        CREATE INDEX IF NOT EXISTS tasks_pending ON tasks (agent_type, created_at)
            WHERE status = 'pending';
        CREATE INDEX IF NOT EXISTS notifications_unsent ON notifications (created_at)
            WHERE sent_at IS NULL;
    ELSE
        RAISE WARNING 'tables of these names belong to somebody else and lack columns: %; the handlers of community events cannot write there', lacking;
    END IF;
END $$;
