"""VRAM supervisor: ComfyUI finds the pack through this file.

Nothing is imported at module level: pytest collects this folder too, where a relative
import has no parent package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes.extension import SupervisorExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> SupervisorExtension:
    """Give ComfyUI the extension; called once while custom nodes load."""
    from .nodes.extension import SupervisorExtension  # noqa: PLC0415

    return SupervisorExtension()
