"""What ComfyUI recognises each image or video VAE by. Standard library only.

ComfyUI looks for certain tensors in a file, and reads some widths off their shapes, to choose
the class and its settings. A layout names just those tensors; every other name and shape is
asked of the class that ComfyUI then builds. Widths are those of the published models.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Shape = tuple[int, ...]

SD_ENCODER: Final[dict[str, Shape]] = {"encoder.down.2.downsample.conv.weight": (512, 512, 3, 3)}
LTX_FIRST_BLOCK: Final = "decoder.up_blocks.0.res_blocks.0.conv1.conv.weight"
LTX_STRIDED_ENCODER: Final[dict[str, Shape]] = {"encoder.down_blocks.1.conv.conv.bias": (64,)}


@dataclass(frozen=True)
class Layout:
    """One kind of VAE file.

    Attributes:
        name: what the command line calls it.
        title: what people know it by.
        class_name: the class ComfyUI makes of it.
        marks: the tensors it is recognised by, with the shapes of the published model.
        latent_channels: of a latent the VAE takes.
        spatial_scale: pixels per latent pixel along one side.
        temporal_scale: frames per latent frame in the long run; None for images.
        configure: what the file's metadata say, where the class is set up from them.
        prefixes: file prefix by module prefix, where ComfyUI renames.
        file_dtype: the dtype ComfyUI tells this layout from a twin by, as torch names it.
        needs_values: the class reads tensors while it is made, so shapes alone will not do.
    """

    name: str
    title: str
    class_name: str
    marks: Mapping[str, Shape]
    latent_channels: int
    spatial_scale: int
    temporal_scale: int | None = None
    configure: Callable[[], dict[str, Any]] | None = None
    prefixes: Mapping[str, str] = field(default_factory=dict[str, str])
    file_dtype: str | None = None
    needs_values: bool = False

    @property
    def metadata(self) -> dict[str, Any] | None:
        """As read from the file's header. Needs ComfyUI on the path where there are any."""
        return self.configure() if self.configure else None


def ltx_2() -> dict[str, Any]:
    """LTX-2: the 0.9.5 layout, with no noise and no time step in the decoder."""
    return _ltx_metadata({"timestep_conditioning": False})


def ltx_2_3() -> dict[str, Any]:
    """LTX-2.3: the decoder grows in space and in time in steps of their own, without residuals.

    Widths as published with the model; blocks are listed from the pixels to the latent.
    """
    encoder = ("4", "space_res 2", "6", "time_res 2", "4", "all_res 2", "2", "all_res 1", "2")
    decoder = ("4", "space 2", "6", "time 2", "4", "all 1", "2", "all 2", "2")
    return _ltx_metadata(
        {
            "timestep_conditioning": False,
            "spatial_padding_mode": "zeros",
            "encoder_blocks": [_ltx_block(each) for each in encoder],
            "decoder_blocks": [_ltx_block(each) for each in decoder],
        }
    )


def _ltx_block(text: str) -> list[Any]:
    """ "4": four residual layers; "space 2": a change of size that halves or doubles channels."""
    kind, _, multiplier = text.partition(" ")
    if multiplier:
        return [f"compress_{kind}", {"multiplier": int(multiplier)}]
    return ["res_x", {"num_layers": int(kind)}]


def _ltx_metadata(changes: dict[str, Any]) -> dict[str, Any]:
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE  # noqa: PLC0415

    config: dict[str, Any] = VideoVAE.get_default_config(None, 2)
    return {"config": json.dumps({"vae": config | changes})}


def _taehv(
    name: str,
    title: str,
    channels: int,
    out: int,
    scale: int,
    *,
    time: int = 4,
    file_dtype: str | None = None,
) -> Layout:
    marks = {"decoder.22.bias": (out,), "decoder.1.weight": (256, channels, 3, 3)}
    return Layout(name, title, "TAEHV", marks, channels, scale, time, file_dtype=file_dtype)


LAYOUTS: Final = (
    # images
    Layout(
        "kl",
        "Stable Diffusion 1, 2 and XL",
        "AutoencoderKL",
        {
            "decoder.conv_in.weight": (512, 4, 3, 3),
            "post_quant_conv.weight": (4, 4, 1, 1),
            **SD_ENCODER,
        },
        4,
        8,
    ),
    Layout(
        "kl16",
        "Flux 1, Stable Diffusion 3",
        "AutoencodingEngine",
        {"decoder.conv_in.weight": (512, 16, 3, 3), **SD_ENCODER},
        16,
        8,
    ),
    Layout(
        "kl-x4",
        "Stable Diffusion x4 upscaler",
        "AutoencoderKL",
        {"decoder.conv_in.weight": (512, 4, 3, 3), "post_quant_conv.weight": (4, 4, 1, 1)},
        4,
        4,
    ),
    Layout(
        "flux2",
        "Flux 2",
        "AutoencoderKL",
        {
            "decoder.conv_in.weight": (512, 32, 3, 3),
            "post_quant_conv.weight": (32, 32, 1, 1),
            "bn.running_mean": (128,),
            **SD_ENCODER,
        },
        128,
        16,
    ),
    Layout(
        "flux2-small",
        "Flux 2, small decoder",
        "AutoencoderKL",
        {
            "decoder.conv_in.weight": (384, 32, 3, 3),
            "post_quant_conv.weight": (32, 32, 1, 1),
            "bn.running_mean": (128,),
            **SD_ENCODER,
        },
        128,
        16,
    ),
    Layout(
        "hunyuan-image",
        "HunyuanImage 2.1",
        "AutoencodingEngine",
        {"decoder.conv_in.weight": (1024, 64, 3, 3)},
        64,
        32,
    ),
    Layout(
        "hunyuan-image-refiner",
        "HunyuanImage 2.1 refiner",
        "AutoencodingEngine",
        {"decoder.conv_in.weight": (1024, 32, 3, 3, 3)},
        32,
        16,
        4,
    ),
    Layout(
        "mage",
        "Mage",
        "MageVAE",
        {"student.dconv_encoder.proj_out.weight": (256, 384, 1, 1)},
        128,
        16,
        prefixes={"dconv_encoder.": "student.dconv_encoder.", "decoder_model.": "pipeline."},
    ),
    Layout(
        "stage-a",
        "Stable Cascade, stage A",
        "StageA",
        {"vquantizer.codebook.weight": (8192, 4)},
        4,
        4,
    ),
    Layout(
        "stage-c",
        "Stable Cascade, stage C previewer",
        "StageC_coder",
        {"encoder.backbone.1.0.block.0.1.num_batches_tracked": ()},
        16,
        8,
    ),
    Layout("taesd", "TAESD", "TAESD", {"taesd_decoder.1.weight": (64, 4, 3, 3)}, 4, 8),
    Layout(
        "taesd16",
        "TAESD for Flux 1 and Stable Diffusion 3",
        "TAESD",
        {"taesd_decoder.1.weight": (64, 16, 3, 3)},
        16,
        8,
    ),
    Layout(
        "taesd-flux2",
        "TAESD for Flux 2",
        "TAESD",
        {"taesd_decoder.1.weight": (64, 32, 3, 3)},
        128,
        16,
        configure=lambda: {"tae_latent_channels": 128},
    ),
    Layout("pixel", "No VAE: pixels", "PixelspaceConversionVAE", {"pixel_space_vae": ()}, 3, 1),
    # videos
    Layout(
        "svd",
        "Stable Video Diffusion",
        "AutoencodingEngine",
        {"decoder.mid.block_1.mix_factor": (1,)},
        4,
        8,
        needs_values=True,
    ),
    Layout(
        "wan2.1",
        "Wan 2.1, Qwen-Image",
        "WanVAE",
        {
            "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1),
            "decoder.head.0.gamma": (96, 1, 1, 1),
            "encoder.conv1.weight": (96, 3, 3, 3, 3),
            "decoder.head.2.weight": (3, 96, 3, 3, 3),
        },
        16,
        8,
        4,
    ),
    Layout(
        "wan2.2",
        "Wan 2.2 5B",
        "WanVAE",
        {
            "decoder.middle.0.residual.0.gamma": (1024, 1, 1, 1),
            "decoder.upsamples.0.upsamples.0.residual.2.weight": (1024, 1024, 3, 3, 3),
        },
        48,
        16,
        4,
    ),
    Layout(
        "hunyuan",
        "HunyuanVideo",
        "AutoencoderKL",
        {
            "decoder.conv_in.conv.weight": (512, 16, 3, 3, 3),
            "post_quant_conv.weight": (16, 16, 1, 1, 1),
        },
        16,
        8,
        4,
    ),
    Layout(
        "hunyuan1.5",
        "HunyuanVideo 1.5",
        "AutoencodingEngine",
        {"decoder.conv_in.conv.weight": (1024, 32, 3, 3, 3)},
        32,
        16,
        4,
    ),
    Layout(
        "ltx", "LTX-Video 0.9.0", "VideoVAE", {LTX_FIRST_BLOCK: (512, 512, 3, 3, 3)}, 128, 32, 8
    ),
    Layout(
        "ltx0.9.1",
        "LTX-Video 0.9.1",
        "VideoVAE",
        {LTX_FIRST_BLOCK: (1024, 1024, 3, 3, 3)},
        128,
        32,
        8,
    ),
    Layout(
        "ltx0.9.5",
        "LTX-Video 0.9.5 to 0.9.8",
        "VideoVAE",
        {LTX_FIRST_BLOCK: (1024, 1024, 3, 3, 3), **LTX_STRIDED_ENCODER},
        128,
        32,
        8,
    ),
    Layout(
        "ltx2",
        "LTX-2",
        "VideoVAE",
        {LTX_FIRST_BLOCK: (1024, 1024, 3, 3, 3), **LTX_STRIDED_ENCODER},
        128,
        32,
        8,
        configure=ltx_2,
    ),
    Layout(
        "ltx2.3",
        "LTX-2.3",
        "VideoVAE",
        {LTX_FIRST_BLOCK: (1024, 1024, 3, 3, 3), **LTX_STRIDED_ENCODER},
        128,
        32,
        8,
        configure=ltx_2_3,
    ),
    Layout(
        "ltx2.4",
        "LTX-2.4",
        "CausalDiffusionVAE",
        {"decoder.conv_in_x_t.weight": (256, 48), "decoder.conv_in.weight": (2048, 128)},
        128,
        32,
        8,
    ),
    Layout(
        "mochi",
        "Mochi 1",
        "VideoVAE",
        {
            "decoder.blocks.2.blocks.3.stack.5.weight": (512, 512, 3, 3, 3),
            "encoder.layers.4.layers.1.attn_block.attn.qkv.weight": (384, 128),
        },
        12,
        8,
        6,
    ),
    Layout(
        "cosmos",
        "Cosmos 1",
        "CausalContinuousVideoTokenizer",
        {"decoder.unpatcher3d.wavelets": (2,)},
        16,
        8,
        8,
        needs_values=True,
    ),
    Layout(
        "cogvideo",
        "CogVideoX",
        "AutoencoderKLCogVideoX",
        {
            "decoder.conv_in.conv.weight": (512, 16, 3, 3, 3),
            "decoder.mid_block.resnets.0.norm1.norm_layer.weight": (512,),
            "encoder.conv_out.conv.weight": (32, 512, 3, 3, 3),
        },
        16,
        8,
        4,
    ),
    Layout(
        "h3",
        "MiniMax H3",
        "MiniMaxH3VideoVAE",
        {
            "decoder.transformer_blocks.0.scale1": (2048,),
            "encoder.down.5.block.0.conv1.weight": (1024, 512, 3, 3, 3),
        },
        24,
        16,
        4,
    ),
    Layout(
        "seedvr2",
        "SeedVR2",
        "VideoAutoencoderKLWrapper",
        {"decoder.up_blocks.2.upsamplers.0.upscale_conv.weight": (1024, 256, 1, 1, 1)},
        16,
        8,
        4,
    ),
    _taehv("taehv", "TAEHV for Wan 2.1", 16, 3, 8),
    _taehv("taehv-hunyuan", "TAEHV for HunyuanVideo", 16, 3, 8, file_dtype="float16"),
    _taehv("taehv-hunyuan1.5", "TAEHV for HunyuanVideo 1.5", 32, 12, 16),
    _taehv("taehv-wan2.2", "TAEHV for Wan 2.2 5B", 48, 12, 16),
    _taehv("taehv-ltx2", "TAEHV for LTX-2", 128, 48, 32, time=8),
    _taehv("taehv-h3", "TAEHV for MiniMax H3", 24, 12, 16),
)

ZOO: Final[dict[str, Layout]] = {layout.name: layout for layout in LAYOUTS}
