"""The report as one HTML page that needs nothing else: no script, no font, no file, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import msgspec

from pflx.engines.writer import write_whole
from pflx.runtime.bench.plots import NARROW, WIDE, histogram, minute_plot, number, rung_name, stage_bar, trail_plot
from pflx.runtime.bench.report import Report
from pflx.runtime.figures import Distribution, Figures, Quantile

_NONE = "–"
_PERCENTILES = {"p50": ("p50", 6), "p90": ("p90", 29), "p95": ("p95", 59), "p99": ("p99", 299), "p999": ("p99.9", 100_000)}
"""Field of a distribution to its name, and how many values it takes."""
_UNITS = (("_ms_per_min", "ms/min"), ("_ms_per_h", "ms/h"), ("_ms", "ms"), ("_s", "s"), ("_mb", "MB"), ("_gb", "GB"))
_WORDS = {"dmr": "deadline-miss rate", "os": "OS", "cpu": "CPU", "gpu": "GPU", "cuda": "CUDA", "fps": "frames per second"}
_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f5f7f9;--ink:#16202a;--soft:#566370;--rule:#d9dfe5;
--blue:#0072b2;--green:#009e73;--orange:#d98e00;--pink:#b8578d;--sky:#56b4e9;--red:#c44e00}
@media(prefers-color-scheme:dark){:root{--paper:#11161b;--card:#1a2128;--ink:#e9eef2;--soft:#a0acb8;--rule:#323c46;
--blue:#56b4e9;--green:#1fbf92;--orange:#e69f00;--pink:#dd94bd;--sky:#0072b2;--red:#ff8242}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:960px;margin:auto;padding:28px 16px 56px}
h1{font-size:1.75rem;line-height:1.2;margin:0;overflow-wrap:anywhere;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:44px 0 12px;letter-spacing:-.005em}
p{margin:8px 0;overflow-wrap:anywhere}
.soft,.note{color:var(--soft)}.note{font-size:.875rem;max-width:70ch}
.badge{display:inline-block;margin:10px 8px 0 0;padding:1px 10px;border:1px solid var(--red);border-radius:99px;
color:var(--red);font-size:.875rem}
.quote{margin:20px 0;padding:12px 14px;border-left:4px solid var(--blue);background:var(--card);
font:.9rem/1.55 ui-monospace,SFMono-Regular,Consolas,monospace;user-select:all;overflow-wrap:anywhere}
.verdict{margin:0 0 20px;padding-left:20px}.verdict li{margin:4px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(205px,1fr));gap:12px;margin:0}
.tiles div{background:var(--card);border-radius:10px;padding:12px 16px}
.tiles dt{color:var(--soft);font-size:.875rem}
.tiles dd{margin:0;font-size:.8125rem;color:var(--soft);line-height:1.4;overflow-wrap:anywhere}
.tiles dd.value{font-size:1.7rem;font-weight:650;color:var(--ink);line-height:1.3;white-space:nowrap}
.value small{font-size:.95rem;font-weight:400;color:var(--soft)}
.scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:10px}
.long{max-height:420px;overflow-y:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 12px;text-align:right;vertical-align:top;white-space:nowrap;border-top:1px solid var(--rule)}
thead th{border-top:0;color:var(--soft);font-weight:500;position:sticky;top:0;background:var(--paper)}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper);font-weight:500;white-space:normal;
min-width:118px}
td small{display:block;color:var(--soft);font-size:.75rem}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,290px),1fr));gap:0 32px;margin:0;
font-size:.875rem}
.facts div{display:flex;justify-content:space-between;gap:16px;padding:6px 0;border-bottom:1px solid var(--rule)}
.facts dt{color:var(--soft)}.facts dd{margin:0;text-align:right;overflow-wrap:anywhere;min-width:0}
.trio{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,290px),1fr));gap:20px 16px;margin-bottom:16px}
.trio svg{max-width:400px}
svg{display:block;width:100%;height:auto;overflow:visible}
.wide text{font-size:13px}.narrow text,.trio text{font-size:12px}
.wide{display:none}.narrow{max-width:480px}
@media(min-width:760px){.wide{display:block}.narrow{display:none}main{padding:48px 32px 80px}h1{font-size:2.1rem}}
text{fill:var(--soft);font-variant-numeric:tabular-nums}text.label{fill:var(--ink)}
path{fill:none;stroke-width:1.6;stroke-linecap:round;stroke-linejoin:round}
.grid{stroke:var(--rule);stroke-width:1;stroke-linecap:butt}
.deadline{stroke:var(--ink);stroke-dasharray:6 4;stroke-linecap:butt}.mark{stroke:var(--red)}
.missed{stroke:var(--red);stroke-linecap:butt}.curve{stroke:var(--blue)}
.rung0{stroke:var(--blue);stroke-width:4.5}.rung1{fill:var(--green)}.rung2{fill:var(--orange)}
.rung3{stroke:var(--pink);stroke-width:2}
.bar,.stage0{fill:var(--blue)}.stage1{fill:var(--orange)}.stage2{fill:var(--green)}.stage3{fill:var(--pink)}
.stage4{fill:var(--sky)}.stage5{fill:var(--soft)}.hover{fill:transparent}.hover:hover{fill:var(--soft);opacity:.18}
@media print{:root{--paper:#fff;--card:#f5f7f9;--ink:#000;--soft:#444;--rule:#ccc;--blue:#0072b2;--green:#009e73;
--orange:#d98e00;--pink:#b8578d;--sky:#56b4e9;--red:#c44e00}body{font-size:10.5pt}main{max-width:none;padding:0}
.wide{display:block}.narrow{display:none}section,tr,.tiles div{break-inside:avoid}.scroll{overflow:visible;max-height:none}
thead th,th:first-child{position:static}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}@page{margin:14mm}}
"""


def save_page(path: Path, report: Report) -> None:
    """Write the page of a report, complete or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(path, render_page(report).encode())


def render_page(report: Report) -> str:
    """A report as one HTML page: what it says first, then plots, then every figure, then what was measured where."""
    title = escape(f"{report.setup.bundle}: latency, {report.mode}")
    parts = (_head, _tiles, _plots, _distributions, _single_figures, _rungs, _minutes, _sessions, _engines, _self_test, _about)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>\n"
        + "\n".join(filter(None, (part(report) for part in parts)))
        + "\n</main></body></html>\n"
    )
