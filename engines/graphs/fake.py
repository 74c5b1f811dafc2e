"""An engine made of a Python function: for tests and for trying a pipeline without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pflx.engines.graphs.protocol import Array, EngineError, FeedError, TensorSpec, bind_dimensions, check_feeds


class FakeEngine:
    """Serves a function behind the `Engine` protocol, with the same checks as a real backend.

    Attributes:
        calls: how often `run` has called the function.
    """

    def __init__(
        self,
        fn: Callable[[Mapping[str, Array]], Mapping[str, Array]],
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
    ) -> None:
        """Wrap `fn`.

        Args:
            fn: takes the checked feeds, returns one array per output.
            inputs: what `run` takes.
            outputs: what `fn` promises to return; a broken promise raises EngineError.
        """
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)
        self.calls = 0
        self._fn: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = fn

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Check the feeds, call the function and check what it returned; see `Engine.run`."""
        if self._fn is None:
            raise EngineError("The fake engine is closed; open a new one.")
        sizes = check_feeds(self.inputs, feeds)
        self.calls += 1
        results = dict(self._fn(feeds))
        self._check_results(results, sizes)
        return results

    def close(self) -> None:
        """Drop the function; a later `run` raises EngineError."""
        self._fn = None

    def _check_results(self, results: Mapping[str, Array], sizes: dict[str, int]) -> None:
        if results.keys() != self.outputs.keys():
            raise EngineError(f"The fake engine returned {sorted(results)}, not {sorted(self.outputs)}.")
        try:
            for name, spec in self.outputs.items():
                bind_dimensions(name, spec, results[name], sizes)
        except FeedError as error:
            raise EngineError(f"The fake engine returned a wrong array: {error}") from error
