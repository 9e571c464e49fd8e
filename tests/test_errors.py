"""Every error says what happened, what was kept and what to do."""

import inspect
from pathlib import Path

import pytest

from vram_supervisor.supervisor import errors

SAMPLES = {
    "SizeUnreadableError": ("much",),
    "QueryRejectedError": ("width", "must be a number"),
    "ForeignOriginError": ("http://elsewhere.example",),
    "JobRunningError": ("Node 5 (KSampler) of job 1 runs",),
    "StreamLimitReachedError": (64, 5),
    "ProbeUnavailableError": ("NVML", "the library is missing"),
    "HistoryUnusableError": (Path("/x/history.sqlite3"), "read-only"),
    "CalibrationUnusableError": (Path("/x/calibration.sqlite"), "the disk is full"),
    "StoreUnusableError": (Path("/x/store.sqlite"), "the disk is full"),
    "NothingFitsError": (1, 2),
    "EncodeFailedError": (["whole: ran out of memory"],),
    "PicturesNotEncodableError": ("0 x 64 x 64 x 3", "there is none"),
    "PartDoesNotFitError": ("up path, 8x8 at (0, 0)",),
    "DecodedOtherwiseError": ("12 frames", "9"),
    "LatentNotDecodableError": ("1 x 4 x 0 x 8", "a size is below 1"),
    "MemoryFigureUnusableError": ("the budget", float("nan")),
    "PortTakenError": ("127.0.0.1", 8288, "address in use"),
    "DecodeBusyError": ("job-1",),
    "SupervisorStoppedError": (),
    "DecodeInterruptedError": (3,),
    "FolderRefusedError": ("../x", Path("/output")),
    "PrefixRefusedError": ("a/b", "contains a separator"),
    "VideoWriterMissingError": (),
    "FramesError": ("It failed. Nothing was lost.",),
    "FrameTakenError": (Path("/output/frame_00000.png"), "no file of this node"),
    "FramesNotWrittenError": (Path("/output"), "the device is gone", "3 frames are kept."),
    "DiskFullError": (Path("/output"), "3 frames are kept."),
    "DecodeFailedError": (["whole: out of memory"], Path("/x/latent")),
}


def raisable():
    return {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.SupervisorError) and kind is not errors.SupervisorError
    }


@pytest.mark.parametrize("name", sorted(raisable()))
def test_the_message_has_three_parts(name):
    assert name in SAMPLES, f"{name} is new: add sample arguments for it here"
    message = str(raisable()[name](*SAMPLES[name]))
    # Situation, what was kept and advice are sentences of their own.
    assert message.count(". ") + message.count("; ") >= 1, message
    assert message.endswith("."), message


def test_a_failed_decode_names_the_saved_latent():
    error = errors.DecodeFailedError(["whole: out of memory", "tiled: out of memory"], Path("a/b"))
    assert str(Path("a/b")) in str(error)
    assert error.tried == ("whole: out of memory", "tiled: out of memory")
