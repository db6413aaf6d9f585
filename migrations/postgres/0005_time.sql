-- Rows of `events` come in the order of their times: summaries of their blocks find a range of
-- time as well as a tree, which would grow with every insert and every mark.
DROP INDEX events_by_time;
CREATE INDEX events_by_time ON events
    USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);
