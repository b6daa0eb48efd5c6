"""The same search as :mod:`tests.fuzz`, of one format, led by what files reach in the readers.

``pip install atheris`` in an environment of its own, with this project's; then
``python -m tests.fuzz_by_coverage FORMAT SECONDS DIR``. What breaks a limit is left in the folder,
and the worst so far in ``FORMAT.txt``.
"""

import logging
import sys
import warnings
from pathlib import Path


def main() -> None:
    """Search; libFuzzer ends the process."""
    import atheris  # not among the project's packages

    with atheris.instrument_imports(include=["superres.codecs", "PIL", "tifffile"]):
        from superres.codecs import FORMATS
        from tests.decoding import measure
        from tests.fuzz import Found
        from tests.hostile import seeds

    name, seconds, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    corpus = folder / f"corpus-{name}"
    corpus.mkdir(parents=True, exist_ok=True)
    row = FORMATS[name]
    for number, seed in enumerate(seeds()):
        measure(seed)
        if row.is_format_of(seed):
            (corpus / f"seed-{number}").write_bytes(seed)
    found = Found()
    warnings.simplefilter("ignore")
    logging.disable()

    def try_one(data: bytes) -> None:
        if not row.is_format_of(data):
            return
        if broken := found.add(measure(data)):
            found.broken.append(",".join(broken))
            (folder / f"{name}-{found.files}-{'-'.join(broken)}").write_bytes(data)
        if broken or found.files % 200 == 0:
            (folder / f"{name}.txt").write_text(f"{name:6} {found}\n")

    limits = [f"-max_total_time={seconds}", "-max_len=60000", "-rss_limit_mb=0", "-timeout=60"]
    atheris.Setup([sys.argv[0], str(corpus), *limits], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
