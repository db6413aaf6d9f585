-- Claims that were given back and never taken again are found by their last try, and deleted.
CREATE INDEX inbox_given_back ON inbox (started_at) WHERE state = 0;
