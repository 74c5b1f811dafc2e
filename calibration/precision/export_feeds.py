"""What an export feeds the graphs of a bundle to see whether they fit FP16: a policy must hold there as well."""

from __future__ import annotations

from collections.abc import Mapping

from pflx.engines import Array, Engine, Manifest
from pflx.export.chain import (
    PORTRAIT_SEED,
    SPEAKER_SEED,
    ChainInput,
    Shots,
    react_with_graphs,
    render_with_graphs,
    runtime_generator,
)
from pflx.export.renderers import WarpParts


def feeds_of_an_export(manifest: Manifest, engines: Mapping[str, Engine]) -> dict[str, list[dict[str, Array]]]:
    """Graph to what it is given in the run of the whole chain that ends an export.

    Args:
        manifest: of the bundle.
        engines: of its FP32 graphs, without the preview's; they stay open.
    """
    noting = {graph: _Noting(engine) for graph, engine in engines.items()}
    with runtime_generator(manifest.generator, noting.__getitem__) as generator:
        given = ChainInput.seeded(SPEAKER_SEED, generator, manifest.sample_rate_hz)
        track = react_with_graphs(generator, noting.__getitem__, given)
    shots, painter = Shots.seeded(PORTRAIT_SEED, track.shape[1], manifest.renderer.size), WarpParts()
    found = painter.found(shots.portrait) if manifest.renderer.name == painter.name else {}
    render_with_graphs(manifest.renderer, found, noting.__getitem__, track, shots)
    return {graph: engine.feeds for graph, engine in noting.items()}


class _Noting:
    """An engine that is only lent, and what it was given."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.feeds: list[dict[str, Array]] = []

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; see `Engine.run`."""
        self.feeds.append(dict(feeds))
        return dict(self._engine.run(feeds))

    def close(self) -> None:
        """Leave it open."""
