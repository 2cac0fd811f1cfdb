"""Rules: from YAML and the stream of events to decisions. `reading` reads, `engine` runs, nothing here acts.

YAML ──▶ reading ──▶ compiled (plans, expressions, schedules) ──▶ engine, over its machines ──▶ decisions
└ stage: its place in the log
trying: tests beside rules, backtests and reasons, by living through timelines and logs again
"""
