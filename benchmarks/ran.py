"""Say how many results asv wrote for a commit, and fail where there is none or one failed.

python benchmarks/ran.py "$(git rev-parse HEAD)"
"""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / ".asv" / "results"


def counted(files):
    """Numbers, skipped combinations of parameters (asv writes NaN), and names of benchmarks with a failure (null)."""
    ran, skipped, failed = 0, 0, []
    for file in files:
        for name, (values, *_) in json.loads(file.read_text())["results"].items():
            for value in values or [None]:
                ran += isinstance(value, (int, float)) and value == value
                skipped += value != value
                failed += [name] * (value is None)
    return ran, skipped, failed


if __name__ == "__main__":
    ran, skipped, failed = counted(RESULTS.glob(f"*/{sys.argv[1][:8]}-*.json"))
    print(f"asv: {ran} results, {skipped} skipped, {len(failed)} failed {' '.join(sorted(set(failed)))}".rstrip())
    sys.exit(bool(failed) or not ran)
