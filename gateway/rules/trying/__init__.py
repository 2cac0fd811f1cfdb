"""Rules tried without devices: timelines with expectations, replays of the log, and the reasons found in them."""
