"""What the server says of itself: log, audit, events, conditions, metrics."""
