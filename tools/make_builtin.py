"""Makes runtime/data/256/listener.pflx: the listener without checkpoints, exported once, so that users need no PyTorch.

python tools/make_builtin.py            needs pflx[cpu,export]; tests/export/test_builtin.py exports again and compares
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import msgspec

from pflx.engines import Bundle, write_manifest
from pflx.export import ExportOptions, export_bundle, load_components
from pflx.runtime.builtin import builtin_path


def main() -> None:
    """Export it anew."""
    argparse.ArgumentParser(description="Makes the listener that comes with pflx.").parse_args()
    print(make(builtin_path()).path)


def make(target: Path) -> Bundle:
    """The listener in FP32 and FP16, with FP32 by default."""
    shutil.rmtree(target, ignore_errors=True)
    made = export_bundle(target, load_components(), ExportOptions(precision="fp16"))
    write_manifest(target, msgspec.structs.replace(made.manifest, precision="fp32"))
    return Bundle.open(target)


if __name__ == "__main__":
    main()
