"""The command line of a script of the theory, whose results are parts that need no state."""

from .. import script
from ..resuming import Work


def run(doc, scales, output, report, arguments=None):
    """Reads a script's command line and has it report.

    Args:
        doc: The script's docstring.
        scales: As in `script.parser`.
        output: The default output folder.
        report: `report(work, options)` computes what is missing among the parts of a
            `resuming.Work`, prints and saves it.
        arguments: The command line; `sys.argv`'s by default.

    Returns:
        The exit status.
    """
    options = script.parse(script.parser(doc, scales, output), scales, arguments)
    try:
        work = Work(options.output, script.settings_of(options, scales))
    except ValueError as error:
        return script.failed(error)
    try:
        report(work, options)
    except KeyboardInterrupt:
        return script.stopped(options.output)
    return 0
