"""``python -m dsh_hf.cli``: the command ``dsh-hf``, for ``accelerate launch -m dsh_hf.cli train ...``."""

import sys

from dsh_hf.cli import main

if __name__ == "__main__":
    sys.exit(main())
