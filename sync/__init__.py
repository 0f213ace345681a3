"""What moves, as decisions and values: changes, logs, segments, merge rules, feeds, the exchange. It does nothing itself."""
