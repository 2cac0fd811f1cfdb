"""Rules: from YAML and the stream of events to decisions. `language` reads, `engine` runs, nothing here acts."""
