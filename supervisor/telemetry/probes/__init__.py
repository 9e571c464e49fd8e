"""One module per source of figures; ``discover`` finds what this machine has."""
