-- Nothing to undo: the next call for a present price stores it again.
SELECT 1;
