"""Decodes latents in owned tiles without losing finished work."""
