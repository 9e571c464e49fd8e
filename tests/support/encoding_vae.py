"""A stand-in for ComfyUI's VAE object around a small network, as far as encoding goes."""

from __future__ import annotations

import torch


class OutOfMemory(Exception):
    pass


class EncodingVae:
    """As ``comfy.sd.VAE`` encodes: crops, arranges, and tiles quietly what is too large.

    ``largest`` is how many pixels of one frame its own ``encode`` may get at once.
    """

    at_once = 100
    pad_channel_value = None
    output_channels = 3

    def __init__(self, network, *, video=False, scale=8, **changes):
        self.first_stage_model = network
        self.device = self.output_device = torch.device("cpu")
        self.vae_dtype = torch.float32
        self.patcher = None
        self.latent_dim = 3 if video else 2
        self.latent_channels = getattr(network, "LATENT_CHANNELS", 4)
        self.scale, self.not_video = scale, False
        self.downscale_ratio = (lambda frames: (frames + 3) // 4, scale, scale) if video else scale
        self.upscale_ratio = (lambda frames: 4 * frames - 3, scale, scale) if video else scale
        self.handles_tiling = False
        self.largest = 1 << 40
        self.calls = []
        vars(self).update(changes)

    def memory_used_encode(self, shape, dtype):
        return 100 * shape[-1] * shape[-2]

    def spacial_compression_encode(self):
        return self.scale

    spacial_compression_decode = spacial_compression_encode

    def temporal_compression_decode(self):
        return 4 if self.latent_dim == 3 else None

    def process_input(self, pixels):
        return pixels * 2.0 - 1.0

    def vae_encode_crop_pixels(self, pixels):
        for axis in range(1, pixels.ndim - 1):
            rest = pixels.shape[axis] % self.scale
            pixels = pixels.narrow(axis, rest // 2, pixels.shape[axis] - rest)
        return pixels[..., :3]

    def encode(self, pixels):
        self.calls.append(("whole", tuple(pixels.shape)))
        arranged = self._arranged(pixels)
        if arranged.shape[-1] * arranged.shape[-2] > self.largest:
            return self.encode_tiled_(arranged)
        return torch.cat([self._encoded(part) for part in arranged.split(self.at_once)])

    def encode_tiled_(self, pixels):
        raise AssertionError("core's silent retry must not run")

    def encode_tiled(self, pixels, **sizes):
        self.calls.append(("tiled", sizes))
        arranged = self._arranged(pixels)
        for piece in arranged.split(sizes["tile_x"], -1):
            self._encoded(piece)
        return self._encoded(arranged)

    def _arranged(self, pixels):
        arranged = self.vae_encode_crop_pixels(pixels).movedim(-1, 1)
        if self.latent_dim == 3:
            return arranged.unsqueeze(2) if self.not_video else arranged.movedim(1, 0)[None]
        return arranged

    def _encoded(self, pixels):
        with torch.inference_mode():
            return self.first_stage_model.encode(self.process_input(pixels))
