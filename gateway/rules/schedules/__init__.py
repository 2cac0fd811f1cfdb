"""When something is due by the wall clock: times of day, cron lines, the sun."""
