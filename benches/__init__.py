"""Figures, as ratios measured side by side in one run. Inputs are fixed; nothing here is imported by the gateway."""
