"""What `madtp evaluate --json` printed, file by file, as one Markdown table; names are the files'.

python benchmarks/table.py runs/dense.json runs/madtp-0.5.json
"""

import json
import sys
from pathlib import Path

from madtp.report import markdown_table


def main(files: list[str]) -> None:
    """Print the table of `files`."""
    rows = [{"name": Path(file).stem, **json.loads(Path(file).read_text(encoding="utf-8"))} for file in files]
    print(markdown_table({"rows": rows}), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
