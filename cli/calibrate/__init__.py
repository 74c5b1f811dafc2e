"""`pflx calibrate`: numbers from real data. One file per verb."""

from __future__ import annotations

from pflx.cli.calibrate import bf16, foresight, fp16, int8, lookahead, posnet, record
from pflx.cli.support.usage import App

app = App(help="Numbers from real data: precision, look-ahead, foresight, and PosNet.")
app.command("record")(record.record)
app.command("fp16")(fp16.fp16)
app.command("bf16")(bf16.bf16)
app.command("int8")(int8.int8)
app.command("lookahead")(lookahead.lookahead)
app.command("foresight")(foresight.foresight)
app.command("posnet")(posnet.posnet)
