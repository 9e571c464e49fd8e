"""The stand-alone host: a small real decoder, its page and its command line."""
