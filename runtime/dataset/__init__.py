"""Many clips at once: cropped, reacted to, collected.

`pflx crop`, `pflx batch` and `pflx collect` are the commands; what files hold is in docs/cropping.md and
docs/datasets.md.
"""

from __future__ import annotations

from pflx.runtime.cluster.crew import WorkerError
from pflx.runtime.cluster.ray_session import ClusterError
from pflx.runtime.dataset.collect import Collected, CollectError, Missing, collect, save_collected
from pflx.runtime.dataset.dataset import RowResult, SealError, react_dataset
from pflx.runtime.dataset.manifest import read_rows
from pflx.runtime.dataset.react_layout import read_react
from pflx.runtime.dataset.rows import Row, RowError
from pflx.runtime.dataset.seal import DatasetSettings

__all__ = [
    "ClusterError",
    "CollectError",
    "Collected",
    "DatasetSettings",
    "Missing",
    "Row",
    "RowError",
    "RowResult",
    "SealError",
    "WorkerError",
    "collect",
    "react_dataset",
    "read_react",
    "read_rows",
    "save_collected",
]
