"""HTTP edge: the probe endpoint, its event stream and the history, for any aiohttp host."""
