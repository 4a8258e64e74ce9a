DROP INDEX queue_minutes_dead;
