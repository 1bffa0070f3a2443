"""Where the golden numbers are: the folder in `MADTP_GOLDEN_DIR`, by default the tests' own copy."""

import os
from pathlib import Path

OWN = Path(__file__).parent / "golden"
GOLDEN = Path(os.environ.get("MADTP_GOLDEN_DIR", OWN))


def golden_file(name: str) -> Path:
    """A file of the set in use; what another set lacks is the own copy's."""
    return GOLDEN / name if (GOLDEN / name).is_file() else OWN / name
