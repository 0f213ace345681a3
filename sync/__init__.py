"""What moves, as decisions and values: changes, logs, segments, merge rules, feeds, the exchange. No I/O, no clock."""
