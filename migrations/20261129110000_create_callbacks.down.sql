-- The callbacks and the state of their destinations are lost. Dead letters of callbacks stay, and cannot be replayed.
SET LOCAL lock_timeout = '2s';
DROP TABLE callback_destinations;
DROP TABLE callbacks;
