"""Adaptors to ComfyUI: the process-wide supervisor, job tracking, memory, settings, VAE facts."""
