"""`minillama doctor --device-report`: the table, the progress, and the processes of the steps."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from minillama import env
from minillama.cli.output.terminal import INTERRUPTED, note, write_text
from minillama.measure.device.device_report import DeviceReport
from minillama.measure.device.limited_steps import Child, Event
from minillama.measure.device.report_steps import Step
from minillama.measure.tables import Column, md_head, md_row

_COLUMNS = (
    Column[Event]("step", 20, lambda event: str(event["step"]), left=True),
    Column[Event]("what", 48, lambda event: str(event["what"]), left=True),
    Column[Event]("launches", 8, lambda event: f"{event['launches']:g}" if "launches" in event else ""),
    Column[Event]("value", 10, lambda event: f"{event['value']:g}"),
    Column[Event]("unit", 7, lambda event: str(event["unit"]), left=True),
    Column[Event]("origin", 10, lambda event: str(event["origin"]), left=True),
)


def show_report(
    report: DeviceReport, steps: Sequence[Step], models: Path, environment: Mapping[str, str], *, on_cpu: bool
) -> int:
    """Run steps, and write each value to the table and to the report's file.

    environment: of the processes that use the device.
    """

    def start(group: Sequence[Step]) -> Child:
        command = [sys.executable, "-m", "minillama.cli.device_steps_main", str(models)]
        settings = {"PYTHONPATH": env.python_path()}
        if group[0].by_xla:
            settings["MINILLAMA_CPU_KERNELS"] = "off"
        return Child([*command, *(step.name for step in group)], {**environment, **settings})

    from tqdm import tqdm

    bar = tqdm(total=len(steps), unit="step", leave=False, file=sys.stderr, disable=None)
    try:
        with bar, closing(report.run(steps, start, on_cpu=on_cpu)) as events:
            for event in events:
                if event["event"] in ("device", "value", "refused"):
                    bar.clear()
                _show(event, report)
                if event["event"] == "begin":
                    bar.set_description(str(event["step"]))
                bar.update(event["event"] == "end")
    except KeyboardInterrupt:
        found = f"{len(report.rows)} values are in {report.path}" if report.rows else "nothing was measured"
        note(f"minillama: interrupted; {found}")
        return INTERRUPTED
    write_text(f"\n{len(report.rows)} values in {report.path}\n")
    return 0


def _show(event: Event, report: DeviceReport) -> None:
    if event["event"] == "device" and not report.rows and not report.not_run:
        memory = "" if event["memory"] is None else f", {event['memory'] / 1e9:.1f} GB for JAX"  # type: ignore[operator]
        write_text(f"{event['device']}{memory}, jax {event['jax']}\n\n{md_head(_COLUMNS)}")
    elif event["event"] == "value":
        write_text(md_row(_COLUMNS, event))
    elif event["event"] == "refused":
        note(f"minillama: {event['step']}: {event['reason']}")
