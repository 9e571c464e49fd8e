"""Keeping a sampled latent when its decode fails, in the format of ComfyUI's Save Latent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

PREFIX: Final = "latents/kept_after_failed_decode"


def save_latent(samples: Any) -> Path:
    """Write ``samples`` (a tensor, or a nested one part by part) below the output folder.

    The first part is what Load Latent reads; parts that follow (audio) lie beside it.

    Raises:
        OSError: the output folder cannot be written.
    """
    import comfy.utils
    import folder_paths
    import torch

    parts = list(samples.unbind()) if getattr(samples, "is_nested", False) else [samples]
    folder, name, counter, _, _ = folder_paths.get_save_image_path(
        PREFIX, folder_paths.get_output_directory()
    )
    path = Path(folder) / f"{name}_{counter:05}_.latent"
    tensors: dict[str, torch.Tensor] = {"latent_format_version_0": torch.tensor([])}
    for index, part in enumerate(parts):
        key = "latent_tensor" if index == 0 else f"latent_tensor_{index}"
        tensors[key] = part.detach().cpu().contiguous()
    comfy.utils.save_torch_file(tensors, str(path))
    return path
