"""The nodes, one file each: face and meaning; the work is done in the rooms beside."""
