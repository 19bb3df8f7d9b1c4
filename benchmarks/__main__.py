"""Run a benchmark by its name, or list them: ``python -m benchmarks [NAME ...]``."""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``main(argv)`` of the module that is named first; give its status, or 2 where the input is at fault."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    files = {file.stem: file for file in sorted(Path(__file__).parent.glob("[!_]*.py"))}
    if name in ("-h", "--help"):
        print("usage: python -m benchmarks NAME ...; for its settings: python -m benchmarks NAME --help")
        for known, file in files.items():
            about = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            print(f"  {known}: {about.partition(chr(10))[0]}")
        return 0
    if name not in files:
        print(f"python -m benchmarks: no benchmark {name!r}; there are {', '.join(files)}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"benchmarks.{name}").main(rest) or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"python -m benchmarks {name}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
