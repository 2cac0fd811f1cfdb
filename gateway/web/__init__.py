"""The gateway over HTTP: health, metrics, status, and what an operator on this machine may ask for."""
