"""`pflx person`: somebody whom PerFRDiff behaves like. One file per verb."""

from __future__ import annotations

from pflx.cli.persons import make, show
from pflx.cli.support.usage import App

app = App(help="Persons: whose weights PerFRDiffRender's denoiser has, made once and looked at.")
app.command("make")(make.make)
app.command("show")(show.show)
