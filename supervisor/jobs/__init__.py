"""Job and node records."""
