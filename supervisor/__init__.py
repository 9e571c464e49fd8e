"""The VRAM supervisor: knows nothing of ComfyUI and serves any torch program.

Import direction, enforced by import-linter (see ``pyproject.toml``)::

    units, errors -> types -> ports -> {telemetry, planning, jobs}
                  -> decode -> service -> http -> embedded
"""
