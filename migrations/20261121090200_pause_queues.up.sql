-- What operators say about a queue. One that has no row here, or none with a pause, runs.
CREATE TABLE queues (
    name      text PRIMARY KEY,
    paused_at timestamptz, -- since when nobody claims its jobs
    reason    text,        -- why, for whoever wonders
    CONSTRAINT queues_pause_explained CHECK ((paused_at IS NULL) = (reason IS NULL))
);
