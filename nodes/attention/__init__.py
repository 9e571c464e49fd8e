"""SageAttention as an override of the host's attention on one model."""
