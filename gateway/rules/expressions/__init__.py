"""What operators write inside a rule: expressions, the functions they know, and texts with expressions in them."""
