"""YAML into frozen settings: every problem at once, each with its place."""
