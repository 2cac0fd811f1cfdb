"""A rule or thermostat for one key: where it stands, what it looks at, and what comes of an event or of time."""
