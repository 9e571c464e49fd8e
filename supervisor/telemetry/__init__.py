"""The monitor: probes, sampler, event ring, peaks and history."""
