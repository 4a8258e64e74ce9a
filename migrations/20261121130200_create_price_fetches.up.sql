-- The fetch of a day: once for each asset and source, however many workers, clocks and people ask for it. A row and its
-- job are one transaction.
CREATE TABLE price_fetches (
    day         date NOT NULL,
    asset       text NOT NULL,
    source      text NOT NULL,
    job_id      text NOT NULL,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    outcome     text,                        -- with finished_at
    stored      bigint NOT NULL DEFAULT 0,   -- buckets that were not there
    revised     bigint NOT NULL DEFAULT 0,   -- buckets that the source told anew
    rejected    bigint NOT NULL DEFAULT 0,   -- rows that its last run could not believe
    error       text,                        -- of the last run, or what there is to say
    PRIMARY KEY (day, asset, source),
    CONSTRAINT price_fetches_outcome_known CHECK (outcome IN ('done', 'not_offered', 'dead')),
    CONSTRAINT price_fetches_finished_with_an_outcome CHECK ((finished_at IS NULL) = (outcome IS NULL)),
    CONSTRAINT price_fetches_counts_not_negative CHECK (stored >= 0 AND revised >= 0 AND rejected >= 0)
);
