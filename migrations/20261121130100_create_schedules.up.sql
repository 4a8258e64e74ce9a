-- What is done at fixed times, as the workers last had it; a fire locks its schedule's row, so that one process at a time
-- decides which fires are due.
CREATE TABLE schedules (
    name     text PRIMARY KEY,
    cron     text NOT NULL,                      -- seconds first, in UTC
    catch_up text NOT NULL,
    since    timestamptz NOT NULL DEFAULT now(), -- of this cron expression: nothing before it was missed
    CONSTRAINT schedules_catch_up_known CHECK (catch_up IN ('skip', 'latest', 'all'))
);

-- Every fire: its row and its jobs are one transaction, so a fire happened once or not at all.
CREATE TABLE schedule_fires (
    schedule    text NOT NULL REFERENCES schedules,
    fire_time   timestamptz NOT NULL,            -- the nominal one, whoever's clock said that it had come
    kind        text NOT NULL,
    fired_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    passed_over integer NOT NULL DEFAULT 0,      -- nominal times before this one that were missed, and are not made up
    jobs        integer NOT NULL DEFAULT 0,
    PRIMARY KEY (schedule, fire_time),
    CONSTRAINT schedule_fires_kind_known CHECK (kind IN ('on_time', 'made_up', 'skipped', 'by_hand')),
    CONSTRAINT schedule_fires_counts_not_negative CHECK (passed_over >= 0 AND jobs >= 0),
    CONSTRAINT schedule_fires_skipped_without_jobs CHECK (kind <> 'skipped' OR jobs = 0)
);
