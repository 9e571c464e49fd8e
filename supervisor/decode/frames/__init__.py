"""Decoded frames on disk: written as they are finished, resumed after a crash."""
