import sys
from pathlib import Path

# The scripts are no package: they start before anything is installed.
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
