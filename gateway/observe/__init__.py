"""What the gateway says about itself: one status, and the metrics and log lines that are made from it."""
