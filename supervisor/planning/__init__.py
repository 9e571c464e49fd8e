"""Predicts what a decode needs and chooses how to do it."""
