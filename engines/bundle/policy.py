"""A precision policy: which nodes of which graphs stay in FP32 when the rest becomes FP16."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from pflx.engines.bundle.schema import read_schema
from pflx.engines.graphs.protocol import PflxError

SCHEMA = 1

_MAKE = "Make one: pflx calibrate fp16 BUNDLE --feeds FEEDS -o POLICY.json"


class PolicyError(PflxError, ValueError):
    """A policy cannot be read, or is none for the graph it was given with."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a policy."""


class GraphPolicy(_Record, frozen=True, kw_only=True):
    """What is decided for one graph.

    Attributes:
        skeleton: sha256 of what the FP32 graph is without its weights; the policy fits no other.
        fp32_nodes: names of the nodes that stay in FP32, in the order of the graph.
    """

    skeleton: str
    fp32_nodes: list[str]


class Origin(_Record, frozen=True, kw_only=True):
    """How a policy was found.

    Attributes:
        bundle: whose graphs were calibrated.
        untrained: seed of its weights where they were made up.
        feeds: sha256 of the index of the recorded feeds.
        bound: what was asked of pictures and motion, by name.
        judged: what the policy reaches on held-out takes, emulated, by name; None where it cannot be told.
        evaluations: how many candidates were judged.
        versions: packages that the figures come from.
    """

    bundle: str
    untrained: int | None
    feeds: str
    bound: dict[str, float]
    judged: dict[str, float | bool | None]
    evaluations: int
    versions: dict[str, str]


class Policy(_Record, frozen=True, kw_only=True):
    """The file that `pflx calibrate fp16` writes and `pflx export --policy` reads.

    Attributes:
        schema: version of this description.
        created: time it was found, ISO 8601.
        pflx: version of pflx that found it.
        graphs: graph name → what is decided for it.
        origin: how it was found.
    """

    schema: int = SCHEMA
    created: str
    pflx: str
    graphs: dict[str, GraphPolicy]
    origin: Origin


def encode_policy(policy: Policy) -> bytes:
    """Write a policy as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(policy), indent=2) + b"\n"


def policy_sha256(policy: Policy) -> str:
    """Hash of a policy as `encode_policy` writes it, by which manifests and passports know it."""
    return hashlib.sha256(encode_policy(policy)).hexdigest()


def read_policy(path: Path) -> Policy:
    """Read a policy strictly, schema first.

    Raises:
        PolicyError: no such file, another schema, or not what a policy holds.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise PolicyError(f"{path} does not exist. {_MAKE}") from error
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}. {_MAKE}") from error
    try:
        schema = read_schema(data)
        if schema != SCHEMA:
            raise PolicyError(f"{path} is a policy of schema {schema}, this pflx reads {SCHEMA}. Calibrate again.")
        return msgspec.json.decode(data, type=Policy)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"{path} is no policy: {error}. {_MAKE}") from error
