"""What holds for all tests: nothing is left in the person's own caches."""

import os
import tempfile

# Read when the library is first imported, so it has to be said before any test module is.
_CACHE = tempfile.TemporaryDirectory(prefix="dsh-hf-tests-")
os.environ["HF_DATASETS_CACHE"] = _CACHE.name
