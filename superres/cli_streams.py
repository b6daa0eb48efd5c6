"""``superres enhance`` with ``-``: one picture from standard input, or to standard output."""

import sys

from rich.console import Console

from superres.batch.runner import BatchRunner
from superres.cli_options import format_of
from superres.codecs import OutputFormat, default_output_format, probe
from superres.errors import BadRequest
from superres.paths import check_writable, to_path, write_whole

STREAM = "-"


def enhance_stream(
    inputs: list[str],
    output: str,
    output_format: OutputFormat | None,
    runner: BatchRunner,
    *,
    force: bool,
    dry_run: bool,
    max_pixels: int,
    console: Console,
) -> None:
    """Enhance the one picture; what is to be said goes to ``console``.

    Raises:
        BadRequest: there is more than one input, or no place for the result.
        SuperresError: the picture cannot be read or made.
    """
    if len(inputs) != 1:
        raise BadRequest(
            f"- is one picture; there are {len(inputs)} inputs: name one, or an output folder"
        )
    target = None if output == STREAM else to_path(output)
    if target is None and sys.stdout.isatty() and not dry_run:
        raise BadRequest("the picture would go to the terminal: add > FILE, or name one by -o")
    if target is not None:
        output_format = output_format or format_of(target)
        check_writable(target)
        if target.exists() and not force:
            raise BadRequest(f"{target} is there already: use --force")
    content = sys.stdin.buffer.read() if inputs == [STREAM] else to_path(inputs[0]).read_bytes()
    own = default_output_format(probe(content, max_pixels=max_pixels))
    result = runner.enhance(content, output_format or own, lambda done, of: None)
    height, width = result.size
    note = f": {result.note}" if result.note else ""
    if not dry_run and target is None:
        sys.stdout.buffer.write(result.content)
        sys.stdout.buffer.flush()
    elif not dry_run and target is not None:
        write_whole(target, result.content)
    console.print(
        f"{inputs[0]} -> {output} ({width}x{height}){note}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
