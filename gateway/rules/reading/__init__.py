"""From YAML to compiled rules, with every problem at its place. `language` is the way in."""
